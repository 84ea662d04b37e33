"""Makes an empty kernel namespace look like another one, from what that one has dumped.

Each link is stood in by one end of a veth pair, or by a bridge, with the very index of the link. So addresses,
neighbours, routes and rules are sent back as they were dumped, again and again until nothing is missing: some need
others. What the kernel adds by itself, and was not there, is deleted.
Source: include/uapi/linux/if_link.h, if_addr.h, rtnetlink.h, veth.h, neighbour.h, fib_rules.h.
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from socket import AF_INET, AF_INET6

from reconciler.errors import HostError
from reconciler.model.attribute import unusual
from reconciler.model.fact import deviations
from reconciler.netlink import altnames, interface, message, neighbour, route, rule
from reconciler.netlink.channel import Kernel
from reconciler.netlink.engine import Engine
from reconciler.netlink.facts import Snapshot, snapshot
from reconciler.netlink.interface import Link
from reconciler.netlink.message import attribute
from reconciler.values import NamedTuple

_IFINFOMSG, _HEADER = struct.Struct("=BxHiII"), struct.Struct("=BBBBBBBBI")
_IFADDRMSG, _NDMSG, _U32 = struct.Struct("=BBBBI"), struct.Struct("=BxxxiHBB"), struct.Struct("=I")
_FAMILIES = (AF_INET, AF_INET6)
# RTM_SETLINK; IFLA_ADDRESS, _IFNAME, _MTU, _MASTER, _LINKINFO; IFLA_NET_NS_FD, _NET_NS_PID; IFLA_INFO_KIND,
# _DATA; VETH_INFO_PEER; IFF_UP.
_SET_LINK, _ADDRESS, _IFNAME, _MTU, _MASTER, _LINKINFO = 19, 1, 3, 4, 10, 18
_BY_FILE, _BY_PROCESS = 28, 19
_KIND, _DATA, _PEER, _UP = 1, 2, 1, 0x1
_LOOPBACK, _MAC, _DELETE_LINK = 1, 6, 17
_numbers = itertools.count()
# IFA_ADDRESS, _LOCAL, _FLAGS; IFA_F_SECONDARY, _DADFAILED, _TENTATIVE, _PERMANENT: what the kernel decides.
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _STATES = 1, 2, 8, 0x01 | 0x08 | 0x40 | 0x80
# RTNH_F_PERVASIVE and _ONLINK, all that a request may have of rtm_flags; RTM_F_CLONED.
_ROUTE_FLAGS, _CLONED = 0x2 | 0x4, 0x200
_RTA_CACHEINFO, _RTA_MULTIPATH, _NDA_CACHEINFO, _NDA_PROBES = 12, 9, 3, 4
_PERMANENT, _PROXY = 0x80, 0x08
# No address is tested for duplicates, and no link-local one is made: those that there are, are sent.
_QUIET = {"net.ipv6.conf.{}.accept_dad": "0", "net.ipv6.conf.{}.addr_gen_mode": "1"}
_USUAL = {"net.ipv6.conf.default.addr_gen_mode": "0"}
# Of the kernel as a whole, and of each link: what decides which changes succeed.
_SETTINGS = (
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.promote_secondaries",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.default.disable_ipv6",
)
_LINK_SETTINGS = ("net/ipv4/conf/{}/promote_secondaries", "net/ipv6/conf/{}/disable_ipv6")
_PASSES = 5
# Each takes a millisecond of the host's kernel, and memory. Whoever has rights in a sandbox decides how many there are.
LINKS = 256


class Place(NamedTuple):
    """A namespace to fill, which `kernel` and `engine` read and change.

    `outer`: the same of the namespace that has the other ends of its links. `outside`: how the kernel is told which
    one that is: `namespace_of_file` or `namespace_of_process`.
    """

    kernel: Kernel
    engine: Engine
    outer: Engine
    outside: bytes


def namespace_of_file(descriptor: int) -> bytes:
    """Return what names the namespace of an open file of this process."""
    return attribute(_BY_FILE, _U32.pack(descriptor))


def namespace_of_process(number: int) -> bytes:
    """Return what names the namespace of a process, by its number where the kernel is asked."""
    return attribute(_BY_PROCESS, _U32.pack(number))


def settings_of(dumped: Snapshot) -> list[str]:
    """Return the names of the sysctls that a copy needs."""
    links = [interface.decode_link(payload) for kind, payload in dumped.inside if kind == message.NEW_LINK]
    return [*_SETTINGS, *(each.format(link.name) for link in links for each in _LINK_SETTINGS)]


def build(place: Place, dumped: Snapshot, sysctls: Mapping[str, str]) -> list[str]:
    """Fill a namespace that has nothing but `lo`. Return what it cannot have, in words."""
    engine, lacks = place.engine, []
    links = [(payload, interface.decode_link(payload)) for kind, payload in dumped.inside if kind == message.NEW_LINK]
    if len(links) > LINKS:
        raise HostError(f"the sandbox has {len(links):,} links, and a copy has {LINKS} at most")
    for name, value in _QUIET.items():
        for scope in ("default", "all"):
            _set(place, name.format(scope), value)
    for payload, link in links:
        if link.index == _LOOPBACK:
            continue
        if link.kind not in {"veth", "bridge"}:
            lacks.append(f"{link.name} is a veth in the copy: what its own driver refuses is not seen")
        for failed in stand_in(place, payload, link):
            lacks.append(f"{link.name} cannot be made: {failed}")
    for name, value in sysctls.items():
        if value:
            _set(place, name, value)
    for payload, link in links:
        # The kernel takes none of these when it makes a link.
        for kind, data in message.attributes(payload, _IFINFOMSG.size):
            if kind == _MASTER:
                _send(engine, partial(_change, link.index, attribute(kind, data)))
        _send(engine, partial(interface.encode_attributes, link.index, unusual(link.attributes)))
        if link.altnames:
            _send(engine, partial(altnames.encode, link.index, link.altnames))
        if link.up:
            _send(engine, partial(_up, link.index))
    for table in _TABLES:
        _sync(engine, table, [payload for kind, payload in dumped.inside if kind == table.new])
    for name, value in _USUAL.items():
        _set(place, name, value)
    found = deviations(dumped.facts(), snapshot(engine, ()).facts())
    return lacks + [f"the copy differs: {each.words}" for each in found]


def _set(place: Place, name: str, value: str) -> None:
    """Set a sysctl, if the kernel has it."""
    if place.kernel.read_sysctls([name]).get(name, value) != value:
        place.kernel.set_sysctl(name, value)


def stand_in(place: Place, payload: bytes, link: Link) -> list[message.Failure]:
    """Make a stand-in for a dumped link, which is down. Return why that failed, if it did."""
    found = dict(message.attributes(payload, _IFINFOMSG.size))
    body = b"".join(attribute(kind, found[kind]) for kind in (_IFNAME, _MTU) if kind in found)
    if len(found.get(_ADDRESS, b"")) == _MAC and any(found[_ADDRESS]):
        body += attribute(_ADDRESS, found[_ADDRESS])
    if link.kind == "bridge":
        return _send(place.engine, partial(_made, link.index, body + _info(b"bridge")))
    return _make_pair(place, link.index, body, carrier=link.carrier)


def make(place: Place, name: str, hw_addr: str, mtu: int, *, carrier: bool = False) -> list[message.Failure]:
    """Make a stand-in for a device, which is down. Return why that failed, if it did."""
    body = attribute(_IFNAME, name.encode(errors="surrogateescape") + b"\0") + attribute(_MTU, _U32.pack(mtu))
    mac = bytes.fromhex(hw_addr.replace(":", ""))
    return _make_pair(place, 0, body + (attribute(_ADDRESS, mac) if len(mac) == _MAC else b""), carrier=carrier)


def delete(engine: Engine, index: int) -> list[message.Failure]:
    """Delete a stand-in. Return why that failed, if it did."""
    return _send(engine, partial(_packed, _DELETE_LINK, 0, _IFINFOMSG.pack(0, 0, index, 0, 0)))


def _make_pair(place: Place, index: int, body: bytes, *, carrier: bool) -> list[message.Failure]:
    other = f"end{next(_numbers)}"
    peer = _IFINFOMSG.pack(0, 0, 0, 0, 0) + attribute(_IFNAME, other.encode() + b"\0")
    peer += place.outside
    failures = _send(place.engine, partial(_made, index, body + _info(b"veth", attribute(_PEER, peer))))
    if failures or not carrier:
        return failures
    link = place.outer.link(other)
    return _send(place.outer, partial(_up, link.index)) if link else []


def _info(kind: bytes, data: bytes = b"") -> bytes:
    return attribute(_LINKINFO, attribute(_KIND, kind + b"\0") + (attribute(_DATA, data) if data else b""))


def _made(index: int, body: bytes, sequence: int) -> bytes:
    flags = message.CREATE | message.EXCLUSIVE
    return _packed(message.NEW_LINK, flags, _IFINFOMSG.pack(0, 0, index, 0, 0) + body, sequence)


def _change(index: int, body: bytes, sequence: int) -> bytes:
    return message.pack(_SET_LINK, message.REQUEST, sequence, _IFINFOMSG.pack(0, 0, index, 0, 0) + body)


def _up(index: int, sequence: int) -> bytes:
    return interface.encode_up(index, up=True, sequence=sequence)


def _send(engine: Engine, build: Callable[[int], bytes]) -> list[message.Failure]:
    sequence = engine.next_sequence()
    answers = engine.channel.exchange(message.with_ack(build(sequence)), sequence)
    return [failed for each in answers if each.type == message.ERROR and (failed := message.failure(each))]


class _Table(NamedTuple):
    """A table of the kernel: the types of its messages, its dumps, and what of a dumped entry is sent back."""

    new: int
    delete: int
    dumps: Sequence[Callable[[int], bytes]]
    bare: Callable[[bytes], bytes | None]


def _sync(engine: Engine, table: _Table, payloads: Iterable[bytes]) -> None:
    """Make a table what was dumped, as far as the kernel goes along."""
    wanted = list(filter(None, map(table.bare, payloads)))
    before: set[bytes] | None = None
    for _ in range(_PASSES):
        dumped = [each.payload for dump in table.dumps for each in engine.dump(dump) if each.type == table.new]
        found = set(filter(None, map(table.bare, dumped)))
        surplus, missing = found.difference(wanted), [each for each in wanted if each not in found]
        if not surplus and (not missing or set(missing) == before):
            return
        before = set(missing)
        for each in surplus:
            _send(engine, partial(_packed, table.delete, 0, each))
        for each in missing:
            _send(engine, partial(_packed, table.new, message.CREATE | message.APPEND, each))


def _packed(kind: int, flags: int, body: bytes, sequence: int) -> bytes:
    return message.pack(kind, message.REQUEST | flags, sequence, body)


def _without(payload: bytes, start: int, dropped: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    return ((kind, value) for kind, value in message.attributes(payload, start) if kind not in dropped)


def _bare_address(payload: bytes) -> bytes | None:
    family, length, flags, scope, index = _IFADDRMSG.unpack_from(payload)
    if family not in _FAMILIES:
        return None
    found = dict(message.attributes(payload, _IFADDRMSG.size))
    (flags,) = _U32.unpack(found.pop(_IFA_FLAGS, _U32.pack(flags)))
    flags &= ~_STATES
    body = _IFADDRMSG.pack(family, length, flags & 0xFF, scope, index) + attribute(_IFA_FLAGS, _U32.pack(flags))
    return body + b"".join(attribute(kind, value) for kind, value in sorted(found.items()))


def _bare_route(payload: bytes) -> bytes | None:
    *head, flags = _HEADER.unpack_from(payload)
    if head[0] not in _FAMILIES or flags & _CLONED:
        return None
    parts = [
        attribute(kind, _bare_hops(value) if kind == _RTA_MULTIPATH else value)
        for kind, value in _without(payload, _HEADER.size, {_RTA_CACHEINFO})
    ]
    return _HEADER.pack(*head, flags & _ROUTE_FLAGS) + b"".join(parts)


def _bare_hops(data: bytes) -> bytes:
    hops, start = bytearray(data), 0
    while start + 8 <= len(hops):
        length = int.from_bytes(hops[start : start + 2], sys.byteorder)
        hops[start + 2] &= _ROUTE_FLAGS
        start += max((length + 3) & ~3, 8)
    return bytes(hops)


def _bare_rule(payload: bytes) -> bytes | None:
    return payload if payload[0] in _FAMILIES else None


def _bare_neighbour(payload: bytes) -> bytes | None:
    family, _, state, flags, _ = _NDMSG.unpack_from(payload)
    if family not in _FAMILIES or not (state & _PERMANENT or flags & _PROXY):
        return None
    kept = _without(payload, _NDMSG.size, {_NDA_CACHEINFO, _NDA_PROBES})
    return payload[: _NDMSG.size] + b"".join(attribute(kind, value) for kind, value in kept)


_TABLES = (
    _Table(message.NEW_ADDRESS, message.DELETE_ADDRESS, [interface.dump_addresses_request], _bare_address),
    _Table(
        neighbour.NEW,
        neighbour.DELETE,
        [partial(neighbour.dump_request, proxy=proxy) for proxy in (False, True)],
        _bare_neighbour,
    ),
    _Table(
        message.NEW_ROUTE,
        message.DELETE_ROUTE,
        [partial(route.dump_request, family) for family in _FAMILIES],
        _bare_route,
    ),
    _Table(rule.NEW, rule.DELETE, [partial(rule.dump_request, family) for family in _FAMILIES], _bare_rule),
)
