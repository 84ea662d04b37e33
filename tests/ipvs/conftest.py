"""Fixtures of the tests on a real IPVS table, in each of the places that it can be in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ipvs.place import Domain, Kata, MachineTable, Netns, TablePlace, Vm
from tests.machine import Guest, Machine

# kata-runtime tells no thresholds, settings and marks: to its driver all of the table is ours. What is about them is
# tested where they are told; that a manifest for it is refused if it says them, in tests/manifest/bad/kata.py.
TOLD = pytest.mark.parametrize("where", ["vm", "libvirt", "netns"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["vm", "libvirt", "netns", "kata"])
def where(request: pytest.FixtureRequest, root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TablePlace]:
    """Each place in turn."""
    if request.param == "libvirt":
        daemon, machine = request.getfixturevalue("daemon"), request.getfixturevalue("_domain")
        with daemon.entered():
            yield Domain("libvirt", guest=machine, folder=tmp_path_factory.mktemp("libvirt"))
        return
    folder = tmp_path_factory.mktemp("vm")
    if request.param == "vm":
        yield MachineTable("vm", guest=request.getfixturevalue("machine"), folder=folder)
        return
    if request.param == "kata":
        yield Kata("kata", guest=request.getfixturevalue("guest"), folder=folder)
        return
    yield Netns("netns", host=request.getfixturevalue("uml"))


@pytest.fixture
def place(where: TablePlace) -> Iterator[TablePlace]:
    """Each place in turn, with an empty table."""
    with where.begun():
        yield where


@pytest.fixture
def reached(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineTable]:
    """The own table of a machine that our agent leads to, empty."""
    made = MachineTable("vm", guest=machine, folder=tmp_path_factory.mktemp("vm"))
    with made.begun():
        yield made


@pytest.fixture
def vm(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """The own table of a guest of QEMU, empty: for what is about QEMU, or needs programs that only the guest has."""
    made = Vm("vm", guest=guest, folder=tmp_path_factory.mktemp("vm"))
    with made.begun():
        yield made
