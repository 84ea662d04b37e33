"""Live traffic does not notice a change of a route."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

from tests.conftest import Kernel, ip
from tests.system.box import Box, nic

ADDRESSES = ["10.0.0.2/16", {"address": "fd00::2/64", "dad": False}]
GATEWAYS = {4: ("10.0.0.1", "10.0.0.9"), 6: ("fd00::1", "fd00::9")}
TARGETS = {4: "192.168.7.7", 6: "2001:db8:7::7"}
NETWORKS = {4: "192.168.0.0/16", 6: "2001:db8::/32"}


@pytest.fixture
def device(kernel: Kernel) -> str:
    """Give a NIC whose peer is a router that answers for both gateways and both targets."""
    near, far = kernel.veth()
    router = kernel.namespace()
    ip("link", "set", "dev", far, "netns", router, "name", "eth0")
    ip("link", "set", "dev", "lo", "up", namespace=router)
    ip("link", "set", "dev", "eth0", "up", namespace=router)
    for first, second in GATEWAYS.values():
        for address in (first, second):
            length = ["/64", "nodad"] if ":" in address else ["/16"]
            ip("address", "add", address + length[0], "dev", "eth0", *length[1:], namespace=router)
    for target in TARGETS.values():
        ip("address", "add", target, "dev", "lo", namespace=router)
    return near


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("twin", [False, True], ids=["alone", "with a twin of another metric"])
def test_a_gateway_change_under_a_100_hz_ping_loses_no_packet(
    box: Box, device: str, family: int, *, twin: bool
) -> None:
    def sections(gateway: str) -> dict[str, Any]:
        route = {"dest": NETWORKS[family], "gateway": gateway, "device": "eth0"}
        return {"interfaces": [nic(device, addresses=ADDRESSES)], "routes": [route]}

    first, second = GATEWAYS[family]
    box.apply(**sections(first))
    foreign = [NETWORKS[family], "via", second, "dev", "eth0", "metric", "4000"]
    if twin:
        ip("route", "add", *foreign, namespace=box.namespace)
    # ping rounds its interval up to the kernel's tick: 8 ms ask for at least 100 packets a second.
    command = ["ip", "netns", "exec", box.namespace, "ping", "-q", "-n", "-i", "0.008", "-c", "400", TARGETS[family]]
    changes = 0
    # A busy host makes few changes meanwhile: then again.
    while changes <= 20:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ping:
            while ping.poll() is None:
                changes += 1
                box.apply(**sections((second, first)[changes % 2]))
            output = ping.stdout.read() if ping.stdout else ""
        assert re.search(r"400 packets transmitted, 400 received", output), output
    if twin:
        found = ip(f"-{family}", "route", "show", "metric", "4000", namespace=box.namespace)
        assert found.startswith(f"{NETWORKS[family]} via {second} dev eth0")


def test_a_change_of_a_link_keeps_its_traffic(box: Box, device: str) -> None:
    """Renames and MAC changes go without taking the link down, where the kernel allows it."""
    routes = [{"dest": NETWORKS[4], "gateway": GATEWAYS[4][0], "device": "eth0"}]
    box.apply(interfaces=[nic(device, addresses=ADDRESSES)], routes=routes)
    ip(
        "route",
        "add",
        "203.0.113.0/24",
        "via",
        GATEWAYS[4][1],
        "dev",
        "eth0",
        "proto",
        "static",
        namespace=box.namespace,
    )
    renamed = [nic(device, "net0", 5, addresses=ADDRESSES, mtu=1400)]
    box.apply(interfaces=renamed, routes=[routes[0] | {"device": "net0"}])
    found = ip("route", "show", "proto", "static", namespace=box.namespace)
    assert found.split() == f"203.0.113.0/24 via {GATEWAYS[4][1]} dev net0".split()
    command = ["ip", "netns", "exec", box.namespace, "ping", "-q", "-c", "3", "-i", "0.1", TARGETS[4]]
    assert "3 received" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
