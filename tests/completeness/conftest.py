"""Fixtures of the tests that read each field back from a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.completeness.worlds import Machine, Namespace, Table
from tests.conftest import Kernel, ip
from tests.ipvs import place
from tests.machine import Guest
from tests.machine import Machine as AnyMachine
from tests.system.box import make_box
from tests.vm.vm import Vm


@pytest.fixture
def namespace(kernel: Kernel, tmp_path: Path) -> Namespace:
    return Namespace(make_box(kernel, tmp_path), names={"DEVICE": kernel.tap(), "OTHER": kernel.tap()})


@pytest.fixture
def plugged(guest: Guest, kernel: Kernel, tmp_path: Path) -> Iterator[Machine]:
    names = {"DEVICE": kernel.tap(), "MULTIQUEUE": kernel.tap("multi_queue"), "SOCKET": str(tmp_path / "vhost.sock")}
    for device in (names["DEVICE"], names["MULTIQUEUE"]):
        ip("link", "set", "dev", device, "up")
    made = Machine(Vm(guest, tmp_path / "vm.yaml"), names=names)
    made.empty()
    yield made
    made.empty()


@pytest.fixture(scope="module")
def _table(machine: AnyMachine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    reached = place.MachineTable("vm", guest=machine, folder=tmp_path_factory.mktemp("vm"))
    with reached.begun():
        yield Table(reached)


@pytest.fixture
def table(_table: Table) -> Iterator[Table]:
    yield _table
    _table.empty()
