"""What a guest tells of: rules and neighbours that are ours, and none that its kernel has learned."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from reconciler.drivers.vm.driver import VmDriver
from reconciler.model.sandbox import VmAddress
from tests.allowed import POLICY
from tests.machine import Guest

MAC = "02:42:20:6f:a3:f1"
LEARNED = [
    f"neigh add 192.0.2.2 lladdr {MAC} dev e0 nud reachable",
    "neigh change 192.0.2.2 dev e0 nud delay",
    f"neigh add 2001:db8::2 lladdr {MAC} dev e0 nud stale router",
    "neigh del 192.0.2.2 dev e0",
]
EVENTS = [
    "rule add priority 100 table 100",
    "rule del priority 100 table 100",
    "-6 rule add priority 100 table 100 protocol 200",
    "-6 rule del priority 100",
    f"neigh add 192.0.2.1 lladdr {MAC} dev e0 nud permanent protocol 200",
    "neigh change 192.0.2.1 dev e0 nud stale",
    "neigh del 192.0.2.1 dev e0",
    # What the kernel derives, and what it changes of an address.
    "address add 192.0.2.77/24 dev e0",
    "address change 192.0.2.77/24 dev e0 valid_lft 600 preferred_lft 500",
    "route del local 192.0.2.77 table local",
    "route del 192.0.2.0/24 dev e0",
    "-6 route del multicast ff00::/8 dev e0 table local",
    "link set e0 arp off",
]


@pytest.fixture
def pair(guest: Guest) -> Iterator[Guest]:
    """A guest with a pair of links that are up."""
    guest.output("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e1")
    for link in ("e0", "e1"):
        guest.output("ip", "link", "set", link, "up")
    try:
        while "tentative" in guest.output("ip", "-6", "address", "show", "scope", "link"):
            time.sleep(0.05)
        yield guest
    finally:
        guest.output("ip", "link", "del", "e0")


def told(driver: VmDriver, wake: int) -> list[int]:
    """Give the types of the next messages. An event of QEMU ends the wait for them as well."""
    deadline = time.monotonic() + 60
    while not (found := [each.type for each in driver.heard(1, wake).messages]) and time.monotonic() < deadline:
        pass
    return found


def test_rules_and_neighbours_of_ours_are_told_and_what_is_learned_is_not(pair: Guest) -> None:
    reading, writing = os.pipe()
    driver = VmDriver(VmAddress(name=pair.sandbox.name), POLICY, borrow=False, report=print)
    try:
        driver.listen()
        while driver.heard(2, reading).messages:
            pass
        for event in LEARNED:
            pair.output("ip", *event.split())
        # All that came before this is told before it.
        pair.output("ip", "rule", "add", "priority", "99", "table", "100")
        assert told(driver, reading) == [32]
        pair.output("ip", "rule", "del", "priority", "99")
        assert told(driver, reading) == [33]
        for event in EVENTS:
            pair.output("ip", *event.split())
            assert told(driver, reading), event
            while driver.heard(0.1, reading).messages:
                pass
    finally:
        driver.close()
        os.close(reading)
        os.close(writing)
