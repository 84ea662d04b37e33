"""Connection tracking of a real guest: entries that `conntrack` makes and lists, and what our deletions leave."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from reconciler.errors import ProtocolError
from reconciler.guest import agent
from reconciler.guest.client import AgentClient
from reconciler.guest.kernel import GuestChannel, GuestKernel
from reconciler.netlink import conntrack, message
from reconciler.netlink.channel import NETFILTER
from tests.machine import Guest

VIP, VIP6 = "10.0.0.1", "2001:db8::1"
STATES = {
    "tcp": ("--state", "ESTABLISHED"),
    "udp": (),
    "sctp": ("--state", "ESTABLISHED", "--orig-vtag", "1", "--reply-vtag", "2"),
}

# Original destination, protocol, port, zone.
Entry = tuple[str, str, int, str]
Delete = Callable[..., int]


@pytest.fixture
def channel(guest: Guest, client: AgentClient) -> Iterator[GuestChannel]:
    kernel = GuestKernel(client)
    client.request(agent.MODPROBE, b"nf_conntrack_netlink")
    guest.run("conntrack", "-F")
    yield kernel.open(NETFILTER)
    guest.run("conntrack", "-F")


@pytest.fixture
def delete(channel: GuestChannel) -> Delete:
    numbers = itertools.count(100)

    def delete(address: str, protocol: str, port: int | None = None) -> int:
        return conntrack.delete(channel, address, protocol, sequence=numbers.__next__, port=port)

    return delete


def insert(guest: Guest, *entries: Entry, source_port: int = 1000) -> None:
    lines = []
    for address, protocol, port, zone in entries:
        source = "2001:db8::9" if ":" in address else "10.1.0.1"
        ends = ("-s", source, "-d", address, "--sport", str(source_port), "--dport", str(port))
        words = ("-p", protocol, *ends, "-t", "600", *STATES[protocol], *(("-w", zone) if zone else ()))
        lines.append(" ".join(["-I", *words]))
    ran = guest.run("conntrack", "-R", "/proc/self/fd/0", stdin="\n".join([*lines, ""]).encode())
    assert ran.status == 0, ran


def listed(guest: Guest, family: str) -> list[Entry]:
    """What the real `conntrack -L` tells of a family."""
    found = []
    for line in guest.run("conntrack", "-L", "-f", family).stdout.decode().splitlines():
        words = line.split()
        # The first of each name is of the original direction.
        values = dict(reversed([word.split("=", 1) for word in words if "=" in word]))
        ours = (":" in values["dst"]) == (family == "ipv6")
        if ours and words[0] in STATES:
            found.append((values["dst"], words[0], int(values["dport"]), values.get("zone", "")))
    return sorted(found)


def left(guest: Guest) -> list[Entry]:
    return sorted(listed(guest, "ipv4") + listed(guest, "ipv6"))


EVERY = sorted(
    (address, protocol, port, "")
    for address in (VIP, "10.0.0.2", VIP6, "2001:db8::2")
    for protocol in ("tcp", "udp")
    for port in (80, 81)
)


@pytest.mark.parametrize("address", [VIP, VIP6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_those_of_one_destination_go(guest: Guest, delete: Delete, address: str, protocol: str) -> None:
    insert(guest, *EVERY)
    assert left(guest) == EVERY
    assert delete(address, protocol, 81) == 1
    assert left(guest) == [each for each in EVERY if each[:3] != (address, protocol, 81)]
    assert delete(address, protocol) == 1
    assert left(guest) == [each for each in EVERY if each[:2] != (address, protocol)]
    assert delete(address, protocol) == 0


def test_sctp_whose_ports_the_kernel_does_not_compare(guest: Guest, delete: Delete) -> None:
    insert(guest, (VIP, "sctp", 80, ""), (VIP, "sctp", 81, ""), (VIP, "tcp", 80, ""))
    assert delete(VIP, "sctp", 82) == 0
    assert delete(VIP, "sctp", 80) == 1
    assert left(guest) == [(VIP, "sctp", 81, ""), (VIP, "tcp", 80, "")]


def test_every_zone(guest: Guest, delete: Delete) -> None:
    zones = [(address, "tcp", 80, zone) for address in (VIP, VIP6) for zone in ("", "5", "65535")]
    insert(guest, *zones)
    assert left(guest) == sorted(zones)
    assert delete(VIP, "tcp") == 3
    assert left(guest) == [each for each in sorted(zones) if each[0] == VIP6]


@pytest.mark.parametrize("direction", ["--orig-zone", "--reply-zone"])
def test_a_zone_of_one_direction(guest: Guest, delete: Delete, direction: str) -> None:
    words = ("-s", "10.1.0.1", "-d", VIP, "-p", "udp", "--sport", "7", "--dport", "80", "-t", "600", direction, "6")
    assert guest.run("conntrack", "-I", *words).status == 0
    assert left(guest) == [(VIP, "udp", 80, "")]
    assert delete(VIP, "udp") == 1
    assert left(guest) == []


def test_just_the_entry_that_was_dumped(guest: Guest, channel: GuestChannel) -> None:
    both = [(VIP, "tcp", 80, ""), (VIP, "tcp", 80, "5")]
    insert(guest, *both)
    for found in channel.exchange(conntrack.dump_request(VIP, "tcp", 1), 1)[:-1]:
        request = conntrack.delete_request(found.payload, VIP, "tcp", 2)
        assert request
        # Its id ends it. One that came after it in another place of the kernel's memory has another id.
        other = request[:-1] + bytes([request[-1] ^ 1])
        assert str(message.failure(channel.exchange(message.with_ack(other), 2)[-1])) == "No such file or directory"
        assert left(guest) == both
        assert message.failure(channel.exchange(message.with_ack(request), 2)[-1]) is None
        gone = (VIP, "tcp", 80, "5" if conntrack.ZONE in dict(message.attributes(request, 20)) else "")
        assert left(guest) == [each for each in both if each != gone]
        insert(guest, gone)


def test_the_kernel_leaves_out_what_it_can(guest: Guest, channel: GuestChannel) -> None:
    insert(guest, *EVERY)
    counts = []
    for number, (address, port) in enumerate(itertools.product((VIP, VIP6), (None, 80)), 1):
        answers = channel.exchange(conntrack.dump_request(address, "udp", number, port=port), number)
        counts.append(len(answers) - 1)
    # IPv6 addresses are not asked to be compared.
    assert counts == [2, 1, 4, 2]


# 10.<n> is one of many clients; the shell in the guest is what makes them quickly.
MANY = f"""
n=0
while [ $n -lt 1500 ]; do
    echo "-I -s 10.2.$((n / 250)).$((n % 250)) -d {VIP} -p udp --sport 1000 --dport 53 -t 600"
    n=$((n + 1))
done > /tmp/many
conntrack --load-file /tmp/many 2>&1
rm /tmp/many
"""


def test_more_than_one_batch(guest: Guest, delete: Delete) -> None:
    insert(guest, (VIP, "tcp", 53, ""), ("10.0.0.2", "udp", 53, ""))
    guest.output("sh", "-c", MANY)
    assert len(left(guest)) == 1502
    assert delete(VIP, "udp") == 1500
    assert left(guest) == [(VIP, "tcp", 53, ""), ("10.0.0.2", "udp", 53, "")]


def test_other_subsystems_stay_out_of_reach(channel: GuestChannel) -> None:
    asked = conntrack.dump_request(VIP, "tcp", 1)
    # Expectations are the subsystem 2.
    other = asked[:5] + b"\2" + asked[6:]
    with pytest.raises(ProtocolError, match="is not relayed"):
        channel.exchange(other, 1)
