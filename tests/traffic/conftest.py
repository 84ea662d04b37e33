"""Fixtures: a guest that directs clients to real servers, and its table, which our command line writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ipvs.place import Vm
from tests.machine import Guest
from tests.traffic.world import World, world


@pytest.fixture(scope="module")
def built(guest: Guest) -> Iterator[World]:
    with world(guest) as made:
        yield made


@pytest.fixture
def director(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """The guest's own table, empty."""
    made = Vm("vm", guest=guest, folder=tmp_path_factory.mktemp("vm"))
    with made.begun():
        yield made


@pytest.fixture
def clients(built: World, director: Vm) -> Iterator[World]:
    """Clients without any connection."""
    assert director.saved() == []
    yield built
    built.end_all()
