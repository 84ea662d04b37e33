"""The table of nftables of a guarded machine: active connections live through a flush, however long it takes."""

from __future__ import annotations

import time

import pytest

from reconciler.drivers import connect
from reconciler.drivers.vm.driver import VmDriver
from reconciler.manifest.load import load
from reconciler.model.sandbox import Sandbox
from tests.allowed import POLICY
from tests.ipvs.place import MachineTable
from tests.machine import Guest
from tests.traffic.test_flush import COUNT, LINES
from tests.traffic.world import VIP6, World

# Seconds without any service: many bytes are sent meanwhile.
GAP = 1.5


@pytest.fixture(scope="module")
def machine(guest: Guest) -> Guest:
    """A guest of QEMU: the kernel of User-mode Linux has no nftables."""
    return guest


@pytest.fixture
def sandbox(director: MachineTable) -> Sandbox:
    (manifest,) = load([director.manifest(rules="\n".join(LINES))])
    return manifest.sandbox


def test_active_connections_live_through_a_long_flush(director: MachineTable, clients: World, sandbox: Sandbox) -> None:
    director.apply(rules="\n".join(LINES))
    clients.connect("active", COUNT, 80)
    clients.connect("active6", 5, 80, vip=VIP6)
    services = sandbox.ipvs.services if sandbox.ipvs else ()
    assert services
    with connect(sandbox, POLICY) as driver:
        assert isinstance(driver, VmDriver)
        assert driver.shield(services) == len([each for each in services if each.protocol == "tcp" and each.port])
        director.clear()
        time.sleep(GAP)
        # The services come back, by whoever restores them.
        director.load("".join(f"{line}\n" for line in LINES))
        assert clients.prove("active", "active6").alive
        driver.shield(())
    # It is gone: a flush cuts what is active.
    director.clear()
    time.sleep(GAP)
    director.load("".join(f"{line}\n" for line in LINES))
    assert clients.prove("active", seconds=5).answered < COUNT
