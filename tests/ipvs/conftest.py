"""Fixtures of the tests on a real IPVS table, in each of the places that it can be in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ipvs.place import Domain, Kata, Netns, TablePlace, Vm
from tests.machine import Guest

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
    if request.param != "netns":
        kind = {"vm": Vm, "kata": Kata}[request.param]
        yield kind(request.param, guest=request.getfixturevalue("guest"), folder=tmp_path_factory.mktemp("vm"))
        return
    yield Netns("netns", host=request.getfixturevalue("uml"))


@pytest.fixture
def place(where: TablePlace) -> Iterator[TablePlace]:
    """Each place in turn, with an empty table."""
    with where.begun():
        yield where


@pytest.fixture
def vm(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """The guest's own table, empty."""
    made = Vm("vm", guest=guest, folder=tmp_path_factory.mktemp("vm"))
    with made.begun():
        yield made
