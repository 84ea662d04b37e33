"""Fixtures: a machine that directs clients to real servers, and its table, which our command line writes.

It is User-mode Linux with our agent: without KVM, a guest of QEMU takes ten times as long for each packet. Files that
need what only such a guest has override the fixture `machine`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ipvs.place import MachineTable
from tests.machine import Machine
from tests.traffic.world import World, world


@pytest.fixture(scope="module")
def built(machine: Machine) -> Iterator[World]:
    with world(machine) as made:
        yield made


@pytest.fixture
def director(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineTable]:
    """The machine's own table, empty."""
    made = MachineTable("vm", guest=machine, folder=tmp_path_factory.mktemp("vm"))
    with made.begun():
        yield made


@pytest.fixture
def clients(built: World, director: MachineTable) -> Iterator[World]:
    """Clients without any connection."""
    assert director.saved() == []
    yield built
    built.end_all()
