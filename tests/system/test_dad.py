"""IPv6 duplicate address detection: an apply ends when the addresses can be used, and says when they cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.cli.main import main
from tests.conftest import Kernel, ip
from tests.system.box import Box, errors, nic


def sysctl(namespace: str, name: str, value: int) -> None:
    subprocess.run(["ip", "netns", "exec", namespace, "sysctl", "-qw", f"{name}={value}"], check=True)


@pytest.fixture
def device(kernel: Kernel) -> str:
    """Give a NIC with a carrier; its peer has fd00::66 and is the gateway fd00::1."""
    near, far = kernel.veth()
    peer = kernel.namespace()
    ip("link", "set", "dev", far, "netns", peer, "name", "eth0", "up")
    for address in ("fd00::1/64", "fd00::66/64"):
        ip("address", "add", address, "dev", "eth0", "nodad", namespace=peer)
    return near


def sections(device: str, host: str, **fields: Any) -> dict[str, Any]:
    return {
        "interfaces": [nic(device, addresses=[f"{host}/64"], **fields)],
        "routes": [
            {"dest": "2001:db8::/32", "gateway": "fd00::1", "device": "eth0", "source": host},
            {"dest": "default", "gateway": "fd00::1", "device": "eth0"},
        ],
    }


def tentative(box: Box) -> str:
    return ip("-6", "address", "show", "scope", "global", "tentative", namespace=box.namespace)


def test_an_apply_ends_when_the_address_can_be_used(box: Box, device: str) -> None:
    wanted = sections(device, "fd00::2")
    assert [words for words in box.diff(**wanted) if words.startswith("while ")] == [
        "while ip -6 address show dev eth0 tentative | grep -qF ' fd00::2/64 '; do sleep 0.1; done"
    ]
    box.apply(**wanted)
    assert tentative(box) == ""
    assert box.diff(**wanted) == []


def test_many_applies_of_an_address_with_a_route_through_it(
    box: Box, device: str, repeats: Callable[[int], int]
) -> None:
    # The kernel's own waits, up to 2 s for each address, would take this test minutes.
    box.apply(interfaces=[nic(device)])
    sysctl(box.namespace, "net.ipv6.conf.eth0.router_solicitation_delay", 0)
    sysctl(box.namespace, "net.ipv6.neigh.eth0.retrans_time_ms", 20)
    for number in range(repeats(200)):
        host = f"fd00::{2 + number % 2}"
        box.apply("--allow-delete", "all", **sections(device, host))
        assert tentative(box) == ""
        found = ip("-6", "route", "show", "2001:db8::/32", namespace=box.namespace)
        assert found.startswith(f"2001:db8::/32 via fd00::1 dev eth0 proto 200 src {host} metric 1024")


def test_a_duplicate_is_an_error(box: Box, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = box.write(interfaces=[nic(device, addresses=["fd00::66/64"])])
    assert main(["apply", file]) == 2
    assert errors(capsys) == (
        "box: another host uses this address already (duplicate address detection): fd00::66/64 on eth0\n"
    )


def test_a_duplicate_that_a_route_needs_is_undone(box: Box, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = box.state()
    file = box.write(**sections(device, "fd00::66"))
    assert main(["apply", "--all-or-nothing", file]) == 2
    error = capsys.readouterr().err
    assert "  fd00::66/64 is in use by another host (duplicate address)\n" in error
    assert error.endswith("box is as it was before.\n")
    assert box.state() == before
    # Without it, the routes over the NIC are not tried, and the NIC stays.
    assert main(["apply", file]) == 2
    assert "  2 done and kept; 1 undone; 2 not tried; 4 left to do." in capsys.readouterr().err
    after = box.state()
    assert after["links"]["eth0"]["addresses"] == []
    assert [each for each in after["routes"] if each["protocol"] == "200"] == []


def test_without_detection_nothing_waits(box: Box, device: str) -> None:
    wanted = sections(device, "fd00::2")
    wanted["interfaces"][0]["addresses"] = [{"address": "fd00::2/64", "dad": False}]
    assert not [words for words in box.diff(**wanted) if words.startswith("while ")]
    box.apply(**wanted)
    assert "nodad" in ip("-6", "address", "show", "dev", "eth0", namespace=box.namespace)
