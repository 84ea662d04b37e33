"""Reads one network namespace as a whole: links, addresses, neighbours, routes, rules, and the sysctls that matter.

Everything is a dump or a file that is read. Source: include/uapi/linux/if_link.h, if_bridge.h, neighbour.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from socket import inet_ntop

from reconciler.doctor.facts import Address, Forward, Link, Neighbour, NeighbourState, Network, Port
from reconciler.errors import ProtocolError
from reconciler.netlink import interface, message, neighbour, route, rule
from reconciler.netlink.engine import Engine
from reconciler.netlink.facts import Snapshot
from reconciler.values import replace

_IFINFOMSG, _NDMSG = struct.Struct("=BxHiII"), struct.Struct("=BxxxiHBB")
_IFADDRMSG_FLAGS = struct.Struct("=BBBBI")
# IFLA_LINK, _QDISC, _LINKINFO, _AF_SPEC, _EXT_MASK, _XDP; IFLA_XDP_ATTACHED.
_LINK, _QDISC, _LINKINFO, _AF_SPEC, _EXT_MASK, _XDP, _ATTACHED = 5, 6, 18, 26, 29, 43, 2
# IFLA_INFO_DATA, _SLAVE_KIND, _SLAVE_DATA; IFLA_BR_VLAN_FILTERING.
_DATA, _PORT_KIND, _PORT_DATA, _VLAN_FILTERING = 2, 4, 5, 7
# IFLA_BRPORT_STATE, _MCAST_FLOOD, _BCAST_FLOOD, _ISOLATED, _LOCKED.
_STATE, _MULTICASTS, _BROADCASTS, _ISOLATED, _LOCKED = 1, 27, 30, 33, 39
# NDA_LLADDR; NUD_NOARP, which a static entry of a bridge has.
_LLADDR, _STATIC = 2, 0x40
# AF_BRIDGE, RTEXT_FILTER_BRVLAN, IFLA_BRIDGE_VLAN_INFO; of struct bridge_vlan_info: _FLAG_PVID.
_AF_BRIDGE, _WITH_VLANS, _VLAN_INFO, _PVID = 7, 2, 2, 2
_VLAN = struct.Struct("=HH")
# IFA_F_DEPRECATED.
_DEPRECATED = 0x20
_SIZES = {2: 4, 10: 16}
_TEXT_MAX = 64
# Of a namespace as a whole, and of each link.
SETTINGS = (
    "net.ipv4.ip_forward",
    "net.ipv4.icmp_echo_ignore_all",
    "net.ipv4.ip_default_ttl",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.proxy_arp",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.proxy_ndp",
)
LINK_SETTINGS = (
    "net.ipv4.conf.{}.rp_filter",
    "net.ipv4.conf.{}.arp_ignore",
    "net.ipv4.conf.{}.forwarding",
    "net.ipv4.conf.{}.proxy_arp",
    "net.ipv6.conf.{}.accept_ra",
    "net.ipv6.conf.{}.forwarding",
    "net.ipv6.conf.{}.disable_ipv6",
    "net.ipv6.conf.{}.proxy_ndp",
)


def decode(snapshot: Snapshot) -> Network:
    """Return what a kernel has dumped. ProtocolError for malformed bytes."""
    try:
        return _decode(snapshot.inside)
    except (KeyError, ValueError, struct.error) as error:
        raise ProtocolError(f"a dump of the kernel cannot be read: {error}") from error


def _decode(dumped: Sequence[tuple[int, bytes]]) -> Network:
    links = tuple(_link(payload) for kind, payload in dumped if kind == message.NEW_LINK)
    names = {each.number: each.name for each in links}
    addresses = (_address(payload, names) for kind, payload in dumped if kind == message.NEW_ADDRESS)
    neighbours = (_neighbour(payload, names) for kind, payload in dumped if kind == neighbour.NEW)
    routes = (route.decode(payload, names) for kind, payload in dumped if kind == message.NEW_ROUTE)
    rules = (rule.decode(payload) for kind, payload in dumped if kind == rule.NEW)
    return Network(
        links=links,
        addresses=tuple(each for each in addresses if each),
        neighbours=tuple(each for each in neighbours if each),
        routes=tuple(each for each in routes if each),
        rules=tuple(each[1] for each in rules if each),
    )


def _link(payload: bytes) -> Link:
    link = interface.decode_link(payload)
    found = dict(message.attributes(payload, _IFINFOMSG.size))
    info = dict(message.attributes(found.get(_LINKINFO, b"")))
    is_bridge = link.kind == "bridge"
    data = dict(message.attributes(info.get(_DATA, b""))) if is_bridge else {}
    xdp = dict(message.attributes(found.get(_XDP, b"")))
    return Link(
        number=link.index,
        name=link.name,
        kind=link.kind,
        hw_addr=link.hw_addr,
        mtu=link.mtu,
        up=link.up,
        carrier=link.carrier,
        arp=link.state.arp,
        ethernet=link.ethernet,
        held=link.state.held,
        master=link.master,
        peer=_number(found.get(_LINK)),
        peer_namespace=link.peer_namespace,
        qdisc=message.text(found.get(_QDISC, b""), _TEXT_MAX, "name of a queue"),
        xdp=any(xdp.get(_ATTACHED, b"")),
        vlan_filtering=any(data.get(_VLAN_FILTERING, b"")),
        port=_port(info) if info.get(_PORT_KIND, b"").rstrip(b"\0") == b"bridge" else None,
        physical=link.physical,
    )


def _port(info: Mapping[int, bytes]) -> Port:
    data = dict(message.attributes(info.get(_PORT_DATA, b"")))
    return Port(
        state=_number(data.get(_STATE, b"\3")),
        broadcasts=any(data.get(_BROADCASTS, b"\1")),
        multicasts=any(data.get(_MULTICASTS, b"\1")),
        isolated=any(data.get(_ISOLATED, b"")),
        locked=any(data.get(_LOCKED, b"")),
    )


def _number(value: bytes | None) -> int:
    return message.number(value or b"", "attribute of a link")


def _address(payload: bytes, names: Mapping[int, str]) -> Address | None:
    found = interface.decode_address(payload)
    if found is None:
        return None
    flags = dict(message.attributes(payload, _IFADDRMSG_FLAGS.size)).get(8, b"")
    return Address(
        link=names.get(found.index, ""),
        address=found.address,
        tentative=found.tentative,
        dad_failed=found.dad_failed,
        deprecated=bool(_number(flags) & _DEPRECATED),
        peer=found.peer,
    )


def _neighbour(payload: bytes, names: Mapping[int, str]) -> Neighbour | None:
    family, index, state, flags, _ = _NDMSG.unpack_from(payload)
    found = dict(message.attributes(payload, _NDMSG.size))
    # NTF_PROXY: it is an address to answer for, not one that was asked for.
    if _SIZES.get(family) != len(found.get(1, b"")) or flags & 0x08:
        return None
    known = NeighbourState(state) if state in {each.value for each in NeighbourState} else None
    return Neighbour(names.get(index, ""), inet_ntop(family, found[1]), found.get(2, b"").hex(":"), known)


def with_settings(network: Network, read: Callable[[Sequence[str]], Mapping[str, str]]) -> Network:
    """Return a network with its sysctls, which `read` reads by their names; it leaves out those that there are not."""
    asked = {each: each for each in SETTINGS}
    for link in network.links:
        for each in LINK_SETTINGS:
            # In the name of a link, a dot is not between two parts.
            path = each.replace(".", "/").format(link.name) if "." in link.name else each.format(link.name)
            asked[path] = each.format(link.name)
    return replace(network, settings={asked[name]: value for name, value in read(list(asked)).items()})


def with_bridges(network: Network, engine: Engine) -> Network:
    """Return a network with the static entries of bridges, and with the VLANs of their ports if any filters by them."""
    if not any(each.kind == "bridge" for each in network.links):
        return network
    flags = message.REQUEST | message.DUMP
    body = _NDMSG.pack(_AF_BRIDGE, 0, 0, 0, 0)
    answers = engine.dump(lambda sequence: message.pack(neighbour.GET, flags, sequence, body))
    found = (_forward(each.payload) for each in answers if each.type == neighbour.NEW)
    network = replace(network, forwards=tuple(each for each in found if each))
    return _with_vlans_of_ports(network, engine)


def _forward(payload: bytes) -> Forward | None:
    _, index, state, _, _ = _NDMSG.unpack_from(payload)
    found = dict(message.attributes(payload, _NDMSG.size))
    return Forward(found.get(_LLADDR, b"").hex(":"), index) if state & _STATIC else None


def _with_vlans_of_ports(network: Network, engine: Engine) -> Network:
    if not any(each.vlan_filtering for each in network.links):
        return network
    mask = message.attribute(_EXT_MASK, struct.pack("=I", _WITH_VLANS))
    body = _IFINFOMSG.pack(_AF_BRIDGE, 0, 0, 0, 0) + mask
    flags = message.REQUEST | message.DUMP
    answers = engine.dump(lambda sequence: message.pack(message.GET_LINK, flags, sequence, body))
    found = dict(_vlans(each.payload) for each in answers if each.type == message.NEW_LINK)
    return replace(network, links=tuple(_with_vlans(each, found) for each in network.links))


def _vlans(payload: bytes) -> tuple[int, list[tuple[int, int]]]:
    spec = dict(message.attributes(payload, _IFINFOMSG.size)).get(_AF_SPEC, b"")
    listed = [_VLAN.unpack(value) for kind, value in message.attributes(spec) if kind == _VLAN_INFO]
    return _IFINFOMSG.unpack_from(payload)[2], listed


def _with_vlans(link: Link, found: Mapping[int, Iterable[tuple[int, int]]]) -> Link:
    if link.port is None:
        return link
    listed = list(found.get(link.number, ()))
    untagged = next((number for flags, number in listed if flags & _PVID), 0)
    vlans = frozenset(number for _, number in listed)
    return link._replace(port=link.port._replace(vlans=vlans, untagged=untagged))
