"""Fixtures of the tests that plug NICs of vhost-user backends into a real virtual machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import resumed
from tests.conftest import Kernel
from tests.machine import Guest
from tests.vm.vm import Vm


@pytest.fixture(scope="module")
def guest(root: None) -> Iterator[Guest]:
    """A machine of two processors: Linux uses no more queues of a NIC than it has processors."""
    with resumed.started(f"vhost-{os.getpid()}") as made:
        yield made


@pytest.fixture
def vm(guest: Guest, kernel: Kernel, tmp_path: Path) -> Iterator[Vm]:
    """Yield the machine, empty before and after.

    `kernel` is asked for so that devices outlive what is plugged.
    """
    del kernel
    made = Vm(guest, tmp_path / "vm.yaml")
    made.assert_is([])
    yield made
    made.empty()
