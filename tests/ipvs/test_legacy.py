"""A large table, which the older interface of the kernel tells at once: both looks see whatever differs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from reconciler.errors import ProtocolError
from reconciler.formats.ipvsadm.rules import parse_rules
from reconciler.guest.agent import SERVERS_HEAD
from reconciler.guest.client import AgentClient
from reconciler.guest.kernel import GuestKernel
from reconciler.model.ipvs import Ipvs, Service
from reconciler.model.sandbox import VmAddress
from reconciler.netlink import ipvs, ipvs_legacy
from reconciler.netlink.ipvs_engine import FEW, IpvsEngine
from tests.ipvs.conftest import TOLD
from tests.ipvs.place import MachineTable, TablePlace

_MANY = [
    line
    for number in range(FEW)
    for line in (
        f"-A -t 10.1.0.{number + 1}:80 -s wrr",
        f"-a -t 10.1.0.{number + 1}:80 -r 10.9.9.1:8080 -m -w {number + 1} -x 90 -y 30",
        f"-a -t 10.1.0.{number + 1}:80 -r 10.9.9.2:80 -g -w 2",
    )
]
_OTHERS = [
    *("-A -u 10.2.0.1:53 -s rr -o", "-a -u 10.2.0.1:53 -r 10.9.9.1:53 -m"),
    *("-A -f 7 -s sh -b sh-port", "-a -f 7 -r 10.9.9.1 -g -w 0"),
    *("-A -f 8 -6 -s rr", "-a -f 8 -6 -r [fd00::9] -g -w 4"),
    *("-A -t [fd00::1]:80 -s rr", "-a -t [fd00::1]:80 -r [fd00::9]:80 -m -w 5"),
    *("-A -t 10.2.0.2:80 -s rr", "-a -t 10.2.0.2:80 -r 10.9.9.1:80 -i --tun-type gue --tun-port 6080"),
    *("-A --sctp-service 10.2.0.3:80 -s rr", "-a --sctp-service 10.2.0.3:80 -r 10.9.9.3:80 -m"),
    "-A -t 10.2.0.4:80 -s rr",
]
RULES = [*_MANY, *_OTHERS]
_WEB = "-t 10.1.0.9:80"
# Of each kind of difference: what somebody does to the table, and what undoes it.
_NAT, _DR = f"{_WEB} -r 10.9.9.1:8080 -m", f"{_WEB} -r 10.9.9.2:80"
_USUAL = f"-e {_NAT} -w 9 -x 90 -y 30"
_TUNNEL = "-e -t 10.2.0.2:80 -r 10.9.9.1:80 -i --tun-type"
CHANGES = {
    "weight": (f"-e {_NAT} -w 77 -x 90 -y 30", _USUAL),
    "upper threshold": (f"-e {_NAT} -w 9 -x 91 -y 30", _USUAL),
    "lower threshold": (f"-e {_NAT} -w 9 -x 90 -y 31", _USUAL),
    "forward": (f"-e {_DR} -m -w 2", f"-e {_DR} -g -w 2"),
    "tunnel": (f"-e {_DR} -i -w 2", f"-e {_DR} -g -w 2"),
    "a server less": (f"-d {_DR}", f"-a {_DR} -g -w 2"),
    "a server more": (f"-a {_WEB} -r 10.9.9.3:8080 -m", f"-d {_WEB} -r 10.9.9.3:8080"),
    "a server of the other family": (f"-a {_WEB} -r [fd00::7]:80 -i", f"-d {_WEB} -r [fd00::7]:80"),
    "mark": ("-e -f 7 -r 10.9.9.1 -g -w 1", "-e -f 7 -r 10.9.9.1 -g -w 0"),
    "mark of IPv6": ("-e -f 8 -6 -r [fd00::9]:0 -g -w 1", "-e -f 8 -6 -r [fd00::9]:0 -g -w 4"),
    "IPv6": ("-e -t [fd00::1]:80 -r [fd00::9]:80 -m -w 1", "-e -t [fd00::1]:80 -r [fd00::9]:80 -m -w 5"),
    "kind of a tunnel": (f"{_TUNNEL} gre", f"{_TUNNEL} gue --tun-port 6080"),
    "SCTP": ("-e --sctp-service 10.2.0.3:80 -r 10.9.9.3:80 -m -x 5", "-e --sctp-service 10.2.0.3:80 -r 10.9.9.3:80 -m"),
    "the first server": ("-a -t 10.2.0.4:80 -r 10.9.9.1:80 -m", "-d -t 10.2.0.4:80 -r 10.9.9.1:80"),
}
# These lose our mark, so that nothing but an apply undoes them.
LAST = (f"-E {_WEB} -s rr", "-D -u 10.2.0.1:53")


@contextmanager
def looking(reached: MachineTable) -> Iterator[IpvsEngine]:
    with (
        AgentClient(VmAddress(**reached.driver["vm"]).file) as client,
        closing(IpvsEngine(GuestKernel(client))) as made,
    ):
        yield made


def desired() -> tuple[Service, ...]:
    return tuple(parse_rules("\n".join(RULES), lambda *_: None))


def test_every_change_is_seen_in_both_looks(reached: MachineTable) -> None:
    rules = "\n".join(RULES)
    reached.apply(rules=rules)
    wanted = Ipvs(services=desired())
    # A mark and a service of IPv6, and what has a tunnel.
    assert looks(reached, wanted) == [(True, 3), (True, 3)]
    for what, (change, undo) in CHANGES.items():
        assert reached.run("ipvsadm", *change.split()).status == 0, what
        assert [is_same for is_same, _ in looks(reached, wanted)] == [False, False], what
        assert reached.run("ipvsadm", *undo.split()).status == 0, what
    assert looks(reached, wanted) == [(True, 3), (True, 3)]
    for change in LAST:
        reached.output("ipvsadm", *change.split())
        assert [is_same for is_same, _ in looks(reached, wanted)] == [False, False], change
        reached.apply(rules=rules)


def looks(reached: MachineTable, wanted: Ipvs) -> list[tuple[bool, int]]:
    """Say of a full and a quick look whether all is as desired, and how many services it had to dump."""
    return [look(reached, wanted, quick=quick) for quick in (False, True)]


def look(reached: MachineTable, wanted: Ipvs, *, quick: bool) -> tuple[bool, int]:
    with looking(reached) as engine, pytest.MonkeyPatch.context() as patched:
        dumped: list[int] = []
        dump = engine._dump_servers

        def counted(identities: list[bytes]) -> list[list[bytes]]:
            dumped.append(len(identities))
            return dump(identities)

        patched.setattr(engine, "_dump_servers", counted)
        found = engine.observe(wanted, quick=quick).ipvs
        return same(found, wanted), dumped[0]


def same(found: Ipvs, wanted: Ipvs) -> bool:
    """Whether each service is the very object that was asked for, which stands for equal bytes."""
    return {id(each) for each in found.services or ()} == {id(each) for each in wanted.services or ()}


def test_a_kernel_or_a_python_without_it_is_read_by_dumps(
    reached: MachineTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached.apply(rules="\n".join(RULES))
    monkeypatch.setattr(GuestKernel, "ipvs_servers", lambda _: None)
    wanted = Ipvs(services=desired())
    assert looks(reached, wanted)[0] == (True, len(desired()))


def test_what_a_guest_makes_up_is_refused_or_does_not_agree() -> None:
    wanted = {ipvs.encode_identity(each.key): each for each in desired()}
    for services, servers in itertools.product((0, 1, 2, 0xFFFFFFFF), repeat=2):
        for data in (b"", b"\0" * 24, b"\xff" * 24, b"\0" * 23, b"\xff" * 4096):
            try:
                assert ipvs_legacy.agreeing(SERVERS_HEAD.pack(services, servers) + data, wanted) == []
            except ProtocolError:
                continue


# The last one, as while a table is in a namespace of the guest, nothing else can run there.
@TOLD
def test_in_each_place_a_table_is_kept(place: TablePlace) -> None:
    rules = "\n".join(RULES)
    place.apply(rules=rules)
    for what in ("weight", "upper threshold"):
        place.output("ipvsadm", *CHANGES[what][0].split())
        assert place.reconciler("diff", place.manifest(rules=rules)).status == 1, what
        place.apply(rules=rules)
