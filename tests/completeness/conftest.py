"""Fixtures of the tests that read each field back from a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.completeness.worlds import Machine, Namespace, Table
from tests.conftest import Kernel, ip
from tests.ipvs import place
from tests.machine import Guest
from tests.system.box import make_box
from tests.vm.vm import Vm


@pytest.fixture
def namespace(kernel: Kernel, tmp_path: Path) -> Namespace:
    return Namespace(make_box(kernel, tmp_path), names={"DEVICE": kernel.tap(), "OTHER": kernel.tap()})


@pytest.fixture
def machine(guest: Guest, kernel: Kernel, tmp_path: Path) -> Iterator[Machine]:
    names = {"DEVICE": kernel.tap(), "MULTIQUEUE": kernel.tap("multi_queue"), "SOCKET": str(tmp_path / "vhost.sock")}
    for device in (names["DEVICE"], names["MULTIQUEUE"]):
        ip("link", "set", "dev", device, "up")
    made = Machine(Vm(guest, tmp_path / "vm.yaml"), names=names)
    made.empty()
    yield made
    made.empty()


@pytest.fixture
def table(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    vm = place.Vm("vm", guest=guest, folder=tmp_path_factory.mktemp("vm"))
    with vm.begun():
        yield Table(vm)
