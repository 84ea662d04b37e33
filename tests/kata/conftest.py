"""Fixtures of the tests that run what is written for `kata-runtime` against a real virtual machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.manifest.dump import dump
from tests.conftest import Kernel, ip
from tests.ipvs.place import Vm as Table
from tests.kata.container import ID, Container
from tests.machine import Guest


@pytest.fixture
def table(guest: Guest, tmp_path: Path) -> Iterator[Table]:
    """The machine's IPVS table, empty before and after."""
    made = Table("vm", guest=guest, folder=tmp_path)
    with made.begun():
        yield made


@pytest.fixture
def container(guest: Guest, kernel: Kernel, tmp_path: Path) -> Iterator[Container]:
    """The machine of all tests under the ID of a container, without interfaces and routes before and after."""
    driver = {"vm": {"name": guest.sandbox.name}}
    manifest = dump([{"apiVersion": "reconciler/v1", "sandbox": ID, "driver": driver}])
    (tmp_path / "sandbox.yaml").write_text(manifest)
    # It lets the TAP go before `kernel` removes it.
    del kernel
    made = Container(guest, tmp_path)
    made.install()
    yield made
    made.empty()


@pytest.fixture
def tap(kernel: Kernel) -> str:
    """The TAP of the document, for as many queues as it asks for."""
    ip("tuntap", "add", "dev", "tap-test", "mode", "tap", "multi_queue")
    kernel.adopt("tap-test")
    ip("link", "set", "dev", "tap-test", "up")
    return "tap-test"
