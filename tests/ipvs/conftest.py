"""Fixtures of the tests on a real IPVS table, in each of the places that it can be in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ipvs import bundle
from tests.ipvs.place import Netns, Place, Vm, Worker
from tests.machine import Guest


@pytest.fixture(scope="session")
def installed(guest: Guest) -> Guest:
    """The guest, with our command line in it."""
    ran = guest.run("busybox", "tar", "-xzf", "-", "-C", "/", stdin=bundle.build())
    assert (ran.status, ran.stderr) == (0, b""), f"our command line cannot be unpacked in the guest: {ran}"
    ran = guest.run(bundle.COMMAND, "--version")
    assert (ran.status, ran.stderr) == (0, b""), f"our command line does not run in the guest: {ran}"
    return guest


@pytest.fixture(scope="module", params=["vm", "netns"])
def where(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Each place in turn; while it is a namespace, nothing but its worker can run in the guest."""
    if request.param == "vm":
        yield Vm("vm", guest=request.getfixturevalue("guest"), folder=tmp_path_factory.mktemp("vm"))
        return
    helper = Worker(request.getfixturevalue("installed"))
    yield Netns("netns", helper=helper)
    helper.close()


@pytest.fixture
def place(where: Place) -> Iterator[Place]:
    """Each place in turn, with an empty table."""
    with where.begun():
        yield where


@pytest.fixture
def vm(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """The guest's own table, empty."""
    made = Vm("vm", guest=guest, folder=tmp_path_factory.mktemp("vm"))
    with made.begun():
        yield made
