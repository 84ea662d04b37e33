"""Whatever somebody changes in a namespace is seen and named, and nothing else is: this is what proves an undo."""

from __future__ import annotations

import struct

import pytest

from reconciler.errors import ProtocolError
from reconciler.model.fact import Fact, deviations
from reconciler.netlink import message
from reconciler.netlink.facts import Snapshot, snapshot
from tests.conftest import Kernel, ip
from tests.netlink.conftest import OpenEngine
from tests.watch.running import until

MAC = "02:00:00:00:00:07"
SETUP = [
    "link add v0 type veth peer name v1",
    "link add br0 address 02:00:00:00:00:09 type bridge",
    "link set v0 address 02:00:00:00:00:01 up",
    "link set v1 address 02:00:00:00:00:02 up",
    "address add 10.0.0.2/24 dev v0",
    "address add 10.0.0.3/24 dev v0",
    "address add fd00::2/64 dev v0 nodad",
    "route add 192.168.0.0/24 via 10.0.0.1",
    "route add default table 100 nexthop via 10.0.0.1 weight 1 nexthop via 10.0.0.9 weight 2",
    "route add local 192.0.2.0/24 dev v0 table 101",
    "-6 route add 2001:db8::/32 via fd00::1",
    "rule add priority 100 from 10.1.0.0/16 table 100",
    "-6 rule add priority 100 iif v0 table 100",
    f"neigh add 10.0.0.1 lladdr {MAC} dev v0 nud permanent",
    "neigh add proxy 10.0.0.77 dev v0",
]
# What somebody does, a part of the words that name it, and what takes it back.
CHANGES = [
    ("link set v0 mtu 1400", "link v0: mtu is 1400, was 1500", "link set v0 mtu 1500"),
    ("link set v0 alias x", "link v0: alias is x, was none", "link set v0 alias ''"),
    (
        f"link set v1 address {MAC}",
        f"link v1: address is {MAC}, was 02:00:00:00:00:02",
        "link set v1 address 02:00:00:00:00:02",
    ),
    ("link set v0 txqueuelen 7", "link v0: txqueuelen is 7, was 1000", "link set v0 txqueuelen 1000"),
    ("link set v0 gso_max_size 30000", "link v0: gso is 30000, was 65536", "link set v0 gso_max_size 65536"),
    ("link set v0 group 7", "link v0: group is 7, was 0", "link set v0 group 0"),
    ("link set v0 promisc on", "link v0: type is", "link set v0 promisc off"),
    ("link set v0 master br0", "link v0: master is", "link set v0 nomaster"),
    ("link set br0 up", "link br0: state is up, was down", "link set br0 down"),
    ("link add w0 type veth peer name w1", "link w0 was not there", "link del w0"),
    ("address add 10.0.0.4/24 dev v0", "address 10.0.0.4/24 of v0 was not there", "address del 10.0.0.4/24 dev v0"),
    # Unlike the one that the kernel makes.
    ("address add fe80::5/64 dev v0 nodad", "address fe80::5/64 of v0 was not there", "address del fe80::5/64 dev v0"),
    (
        "address change 10.0.0.3/24 dev v0 valid_lft 600 preferred_lft 500",
        "address 10.0.0.3/24 of v0: ",
        "address change 10.0.0.3/24 dev v0 valid_lft forever preferred_lft forever",
    ),
    ("address del fd00::2/64 dev v0", "address fd00::2/64 of v0 is missing", "address add fd00::2/64 dev v0 nodad"),
    ("route del 192.168.0.0/24", "route 192.168.0.0/24 dev v0 table 254", "route add 192.168.0.0/24 via 10.0.0.1"),
    (
        "route replace 192.168.0.0/24 via 10.0.0.9",
        "gateway is 10.0.0.9, was 10.0.0.1",
        "route replace 192.168.0.0/24 via 10.0.0.1",
    ),
    ("route replace 192.168.0.0/24 via 10.0.0.1 mtu 1300", "metrics is", "route replace 192.168.0.0/24 via 10.0.0.1"),
    (
        "route replace default table 100 nexthop via 10.0.0.1 weight 1 nexthop via 10.0.0.9 weight 3",
        "nexthops is",
        "route replace default table 100 nexthop via 10.0.0.1 weight 1 nexthop via 10.0.0.9 weight 2",
    ),
    (
        "route del local 192.0.2.0/24 table 101",
        "route 192.0.2.0/24 dev v0 table 101",
        "route add local 192.0.2.0/24 dev v0 table 101",
    ),
    (
        "route del 10.0.0.0/24",
        "route 10.0.0.0/24 dev v0 table 254",
        "route add 10.0.0.0/24 dev v0 proto kernel scope link src 10.0.0.2",
    ),
    (
        "route del local 10.0.0.2 table local",
        "route 10.0.0.2/32 dev v0 table 255",
        "route add local 10.0.0.2 dev v0 table local proto kernel scope host src 10.0.0.2",
    ),
    (
        "-6 route change 2001:db8::/32 via fd00::9",
        "gateway is fd00::9, was fd00::1",
        "-6 route change 2001:db8::/32 via fd00::1",
    ),
    ("rule add priority 101 table 100", "IPv4 rule of priority 101 was not there", "rule del priority 101"),
    ("-6 rule del priority 100", "IPv6 rule of priority 100 is missing", "-6 rule add priority 100 iif v0 table 100"),
    (
        "neigh replace 10.0.0.1 lladdr 02:00:00:00:00:08 dev v0 nud permanent",
        "neighbour 10.0.0.1 of v0: lladdr is 02:00:00:00:00:08",
        f"neigh replace 10.0.0.1 lladdr {MAC} dev v0 nud permanent",
    ),
    ("neigh del proxy 10.0.0.77 dev v0", "proxy 10.0.0.77 of v0 is missing", "neigh add proxy 10.0.0.77 dev v0"),
]


@pytest.fixture
def network(kernel: Kernel) -> str:
    name = kernel.namespace()
    for command in SETUP:
        ip(*command.split(), namespace=name)
    return name


def test_each_change_is_seen_and_named_and_taken_back(network: str, open_engine: OpenEngine) -> None:
    engine = open_engine(network)
    before = snapshot(engine, ()).facts()
    for change, words, back in CHANGES:
        ip(*change.split(), namespace=network)
        found = [each.words for each in deviations(before, snapshot(engine, ()).facts())]
        assert [each for each in found if words in each], (change, found)
        ip(*(word.strip("'") for word in back.split(" ")), namespace=network)
        # The kernel adds the route of an address of IPv6 a moment later.
        until(lambda: deviations(before, snapshot(engine, ()).facts()) == [], back)


def test_what_changes_by_itself_is_none(network: str, open_engine: OpenEngine) -> None:
    engine = open_engine(network)
    before = snapshot(engine, ()).facts()
    for command in (
        "link set v1 down",
        "neigh add 10.0.0.5 lladdr 02:00:00:00:00:08 dev v0 nud stale",
        "link set v1 up",
    ):
        ip(*command.split(), namespace=network)
    found = [each.words for each in deviations(before, snapshot(engine, ()).facts())]
    assert [each for each in found if "link-local" not in each and "fe80" not in each and " ff00" not in each] == []


def test_devices_of_the_host(kernel: Kernel, open_engine: OpenEngine) -> None:
    engine, device, other = open_engine(kernel.namespace()), kernel.tap(), kernel.tap()
    before = snapshot(engine, {device, "nowhere"}).facts()
    ip("link", "set", other, "mtu", "1400")
    assert deviations(before, snapshot(engine, {device, "nowhere"}).facts()) == []
    ip("link", "set", device, "mtu", "1400", "up")
    (found,) = deviations(before, snapshot(engine, {device}).facts())
    assert found.words == f"link {device} of the host: state is up, was down, mtu is 1400, was 1500"
    ip("link", "del", device)
    (found,) = deviations(before, snapshot(engine, {device}).facts())
    assert found.words == f"link {device} of the host is missing"


def test_objects_that_look_alike_are_counted() -> None:
    one, other = (Fact("a rule", None, (("content", each),)) for each in "xy")
    assert deviations([one, other], [other, one]) == []
    assert [each.words for each in deviations([one, one], [one])] == ["a rule is missing"]
    assert [each.words for each in deviations([one], [one, other])] == ["a rule was not there"]
    assert [each.words for each in deviations([one, one], [one, other])] == ["a rule: content is y, was x"]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\0" * 15, struct.pack("=BxHiII", 0, 1, 7, 0, 0), struct.pack("=BxHiII", 0, 1, 7, 0, 0) + b"\1\0\3\0"],
    ids=["empty", "cut", "without a name", "a wrong attribute"],
)
def test_malformed_bytes_are_an_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        Snapshot(((message.NEW_LINK, payload),)).facts()
    with pytest.raises(ProtocolError):
        Snapshot(host=(payload,)).facts()


def test_what_the_kernel_adds_late_is_no_deviation_but_its_loss_is_one() -> None:
    late = Fact("address fe80::1/64 of v0", None, (), comes_late=True)
    assert deviations([], [late]) == []
    assert [each.words for each in deviations([late], [])] == ["address fe80::1/64 of v0 is missing"]
