"""Reads everything that a kernel has, ours or not, by other means than the codec of the model: what proves an undo.

What the kernel has by itself belongs to it (connected and local routes, link-local addresses); neighbours that it has
learned do not, as they come and go. Source: include/uapi/linux/if_link.h, if_addr.h, rtnetlink.h, fib_rules.h,
neighbour.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from socket import AF_INET, AF_INET6, inet_ntop

from reconciler.errors import ProtocolError
from reconciler.model.derived import is_link_local
from reconciler.model.fact import Fact
from reconciler.model.identity import HostDevice, Listed, Nic, NicAddress
from reconciler.model.interface import KERNEL_LINK_LOCAL, address_key
from reconciler.netlink import interface, message, neighbour, route, rule
from reconciler.netlink.engine import Engine, local_engine
from reconciler.values import NamedTuple

_IFINFOMSG, _IFADDRMSG = struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
_RTMSG, _NDMSG = struct.Struct("=BBBBBBBBI"), struct.Struct("=BxxxiHBB")
_U32 = struct.Struct("=I")
_SIZES = {AF_INET: 4, AF_INET6: 16}

# IFF_UP, _BROADCAST, _NOARP, _PROMISC, _ALLMULTI, _MULTICAST.
_LINK_FLAGS = 0x1 | 0x2 | 0x80 | 0x100 | 0x200 | 0x1000
# Attributes that are part of an object's name, or that change by themselves, are left out.
_LINK_FIELDS = {
    1: "address",
    2: "broadcast",
    4: "mtu",
    10: "master",
    13: "txqueuelen",
    20: "alias",
    27: "group",
    41: "gso",
}
_IFNAME, _IFLA_MASTER, _PROP_LIST = 3, 10, 52
# Bytes: IFALIASZ of linux/if.h, without its NUL.
_TEXT_MAX = 255
# IFA_F_TENTATIVE, _DADFAILED, _OPTIMISTIC, _DEPRECATED.
_PASSING_FLAGS = 0x40 | 0x08 | 0x04 | 0x20
_ADDRESS_FIELDS = {1: "peer", 3: "label", 4: "broadcast", 9: "metric", 11: "protocol"}
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_CACHEINFO, _IFA_FLAGS, _IFA_PROTO = 1, 2, 3, 6, 8, 11
_FOREVER = 0xFFFFFFFF
_ROUTE_FIELDS = {
    5: "gateway",
    7: "source",
    8: "metrics",
    18: "via",
    20: "preference",
    22: "encapsulation",
    30: "nexthop",
}
_DST, _SRC, _OIF, _PRIORITY, _MULTIPATH, _TABLE = 1, 2, 4, 6, 9, 15
_ONLINK = 0x4
# RTN_MULTICAST, RTPROT_KERNEL.
_MULTICAST, _KERNEL = 5, 2
_RULE_HEADER, _RULE_PRIORITY, _RULE_INVERT = 12, 6, 0x2
_NEIGHBOUR_FIELDS = {2: "lladdr", 12: "protocol"}
_PERMANENT, _PROXY = 0x80, 0x08


class Snapshot(NamedTuple):
    """What was read, and is decoded only if an operation fails: the messages of a sandbox, and of links of the host."""

    inside: tuple[tuple[int, bytes], ...] = ()
    host: tuple[bytes, ...] = ()

    def facts(self) -> list[Fact]:
        """Return every object. ProtocolError for malformed bytes."""
        try:
            return list(self._facts())
        except (KeyError, ValueError, struct.error) as error:
            raise ProtocolError(f"a dump of the kernel cannot be read: {error}") from error

    def _facts(self) -> Iterator[Fact]:
        names = {}
        for kind, payload in self.inside:
            if kind == message.NEW_LINK:
                found = dict(message.attributes(payload, _IFINFOMSG.size))
                names[_IFINFOMSG.unpack_from(payload)[2]] = _text(found[_IFNAME])
        facts = (_DECODERS[kind](payload, names) for kind, payload in self.inside if kind in _DECODERS)
        yield from (each for each in facts if each)
        yield from map(_host_link, self.host)


def snapshot(engine: Engine, devices: Collection[str]) -> Snapshot:
    """Read the links, addresses, neighbours, routes and rules of a kernel, and these links of the host."""
    requests: list[Callable[[int], bytes]] = [
        interface.dump_links_request,
        interface.dump_addresses_request,
        *(partial(neighbour.dump_request, proxy=proxy) for proxy in (False, True)),
        *(partial(route.dump_request, family) for family in _SIZES),
        *(partial(rule.dump_request, family) for family in _SIZES),
    ]
    inside = tuple((each.type, each.payload) for request in requests for each in engine.dump(request))
    if not devices:
        return Snapshot(inside)
    with local_engine() as host:
        found = [host.link_payload(device) for device in sorted(devices)]
    return Snapshot(inside, tuple(each for each in found if each is not None))


def _link(payload: bytes, names: Mapping[int, str]) -> Fact:
    name = names[_IFINFOMSG.unpack_from(payload)[2]]
    return Fact(f"link {name}", Nic(name), _link_values(payload, names))


def _host_link(payload: bytes) -> Fact:
    name = _text(dict(message.attributes(payload, _IFINFOMSG.size))[_IFNAME])
    return Fact(f"link {name} of the host", HostDevice(name), _link_values(payload, {}))


def _link_values(payload: bytes, names: Mapping[int, str]) -> tuple[tuple[str, str], ...]:
    _, type_, _, flags, _ = _IFINFOMSG.unpack_from(payload)
    found = dict(message.attributes(payload, _IFINFOMSG.size))
    state = "up" if flags & 1 else "down"
    above = names.get(_number(found, _IFLA_MASTER), "") if _IFLA_MASTER in found else ""
    found[_IFLA_MASTER] = above.encode()
    # In the order in which they were given.
    others = sorted(_text(each) for _, each in message.attributes(found.get(_PROP_LIST, b"")))
    own = (("state", state), ("type", f"{type_} {flags & _LINK_FLAGS & ~1:#x}"), ("altnames", " ".join(others)))
    return (*own, *_values(found, _LINK_FIELDS))


def _address(payload: bytes, names: Mapping[int, str]) -> Fact | None:
    family, length, old_flags, scope, index = _IFADDRMSG.unpack_from(payload)
    if family not in _SIZES:
        return None
    found = dict(message.attributes(payload, _IFADDRMSG.size))
    packed = found.get(_IFA_ADDRESS, b"")
    own, other = (inet_ntop(family, each) for each in (found.get(_IFA_LOCAL, packed), packed))
    address = address_key(f"{own}/{length}", other if other != own else None)
    flags = _number(found, _IFA_FLAGS, old_flags) & ~_PASSING_FLAGS
    lifetimes = struct.unpack_from("=II", found.get(_IFA_CACHEINFO, b"\xff" * 8))
    life = " ".join("forever" if each == _FOREVER else "limited" for each in lifetimes)
    name = names.get(index, str(index))
    if re.fullmatch(re.escape(name) + r"(:\d+)?", _text(found.get(_IFA_LABEL, b""))):
        # The kernel numbers the addresses of a NIC when it is renamed.
        del found[_IFA_LABEL]
    values = (("scope", str(scope)), ("flags", f"{flags:#x}"), ("lifetime", life), *_values(found, _ADDRESS_FIELDS))
    late = found.get(_IFA_PROTO) == bytes((KERNEL_LINK_LOCAL,))
    return Fact(f"address {address} of {name}", NicAddress(name, address), values, late)


def _route(payload: bytes, names: Mapping[int, str]) -> Fact | None:
    family, length, source, tos, table, protocol, scope, type_, flags = _RTMSG.unpack_from(payload)
    if (family, type_, protocol) == (AF_INET6, _MULTICAST, _KERNEL):
        # The kernel adds it with the first IPv6 address that a NIC ever had, and keeps it.
        return None
    found = dict(message.attributes(payload, _RTMSG.size))
    table, metric = _number(found, _TABLE, table), _number(found, _PRIORITY)
    dest = f"{inet_ntop(family, found.get(_DST, bytes(_SIZES[family])))}/{length}" if family in _SIZES else str(family)
    device = names.get(_number(found, _OIF), "")
    where = f" dev {device}" if device else ""
    name = f"route {dest}{where} table {table} metric {metric} tos {tos} type {type_} protocol {protocol}"
    values = (
        ("scope", str(scope)),
        ("from", f"{source} {found.get(_SRC, b'').hex()}"),
        ("onlink", str(bool(flags & _ONLINK))),
        ("nexthops", " ".join(_hops(found.get(_MULTIPATH, b""), names))),
        *_values(found, _ROUTE_FIELDS),
    )
    late = (family, protocol) == (AF_INET6, _KERNEL) and is_link_local(dest)
    return Fact(name, Listed("routes", (table, dest, metric)), values, late)


def _hops(data: bytes, names: Mapping[int, str]) -> Iterator[str]:
    """Yield next hops without the flags that say whether their link has a carrier.

    A link that was made anew has its name again, and another number.
    """
    while len(data) >= 8:
        length, flags, weight, index = struct.unpack_from("=HBBi", data)
        yield f"{names.get(index, str(index))} {weight} {flags & _ONLINK} {data[8:length].hex()}"
        data = data[(length + 3) & ~3 or 8 :]


def _rule(payload: bytes, names: Mapping[int, str]) -> Fact:
    del names
    (flags,) = _U32.unpack_from(payload, 8)
    found = dict(message.attributes(payload, _RULE_HEADER))
    family = "IPv6" if payload[0] == AF_INET6 else "IPv4"
    content = f"{payload[:8].hex()} {flags & _RULE_INVERT} {payload[_RULE_HEADER:].hex()}"
    return Fact(f"{family} rule of priority {_number(found, _RULE_PRIORITY)}", None, (("content", content),))


def _neighbour(payload: bytes, names: Mapping[int, str]) -> Fact | None:
    family, index, state, flags, _ = _NDMSG.unpack_from(payload)
    if family not in _SIZES or not (state & _PERMANENT or flags & _PROXY):
        return None
    found = dict(message.attributes(payload, _NDMSG.size))
    address, name, proxy = inet_ntop(family, found[1]), names.get(index, str(index)), bool(flags & _PROXY)
    words = f"{'proxy' if proxy else 'neighbour'} {address} of {name}"
    return Fact(
        words, Listed("neighbours", (name, address, proxy)), (("flags", str(flags)), *_values(found, _NEIGHBOUR_FIELDS))
    )


_DECODERS: Mapping[int, Callable[[bytes, Mapping[int, str]], Fact | None]] = {
    message.NEW_LINK: _link,
    message.NEW_ADDRESS: _address,
    message.NEW_ROUTE: _route,
    neighbour.NEW: _neighbour,
    rule.NEW: _rule,
}
_TEXTS, _NUMBERS = {"alias", "label", "master"}, {"mtu", "txqueuelen", "group", "gso", "metric"}


def _values(found: Mapping[int, bytes], fields: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    for kind, name in fields.items():
        if kind in found:
            yield name, _value(name, found[kind])


def _value(name: str, data: bytes) -> str:
    if name in _TEXTS:
        return _text(data)
    if name in _NUMBERS and len(data) == 4:
        return str(_U32.unpack(data)[0])
    if name in ("peer", "gateway", "source", "broadcast") and len(data) in (4, 16):
        return inet_ntop(AF_INET if len(data) == 4 else AF_INET6, data)
    return data.hex(":")


def _text(data: bytes) -> str:
    return message.text(data, _TEXT_MAX, "name or alias of a link")


def _number(found: Mapping[int, bytes], kind: int, default: int = 0) -> int:
    data = found.get(kind, b"")
    return int(_U32.unpack(data)[0]) if len(data) == 4 else default
