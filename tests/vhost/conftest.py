"""Fixtures of the tests that plug NICs of vhost-user backends into a real virtual machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Kernel
from tests.machine import Guest
from tests.vm.vm import Vm


@pytest.fixture
def vm(guest: Guest, kernel: Kernel, tmp_path: Path) -> Iterator[Vm]:
    """Yield the machine of all tests, empty before and after.

    `kernel` is asked for so that devices outlive what is plugged.
    """
    del kernel
    made = Vm(guest, tmp_path / "vm.yaml")
    made.assert_is([])
    yield made
    made.empty()
