"""Links and addresses in netlink's format: decode dumps, encode operations.

Changes of addresses are rare: pyroute2 encodes them, and is imported only then (150 ms).
Source: include/uapi/linux/if_link.h, if_addr.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from socket import AF_INET, AF_INET6
from typing import Any, assert_never

from reconciler.errors import ProtocolError
from reconciler.model.address import is_ipv6, last_address, split_prefix, unpack
from reconciler.model.attribute import Attributes, changed
from reconciler.model.interface import (
    KERNEL_LINK_LOCAL,
    NAME_MAX,
    UNKNOWN_STATE,
    Address,
    LinkState,
    Origin,
    address_key,
)
from reconciler.model.route import SCOPES
from reconciler.netlink import altnames, attribute, message
from reconciler.operations.address import AddAddress, DeleteAddress, ReplaceAddress
from reconciler.operations.interface import (
    AddAltnames,
    DeleteAltnames,
    LinkOperation,
    RenameInterface,
    SetLink,
)
from reconciler.values import dataclass

_IFINFOMSG = struct.Struct("=BxHiII")
# ARPHRD_ETHER of linux/if_arp.h, and the other types that IPv6 configures as it does Ethernet (addrconf_dev_config):
# RAWIP, TUNNEL, TUNNEL6, IPGRE, IP6GRE, and NONE of a TUN or WireGuard.
_ETHERNET = 1
_IPV6_TYPES = frozenset({_ETHERNET, 519, 768, 769, 778, 823, 65534})
_IFADDRMSG = struct.Struct("=BBBBI")
_U32 = struct.Struct("=I")

# enum in if_link.h and in if_addr.h.
_IFLA_ADDRESS, _IFLA_BROADCAST, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_PERM_ADDRESS = 1, 2, 3, 4, 18, 54
_IFLA_IFALIAS, _IFLA_EXT_MASK, _IFLA_NUM_TX_QUEUES = 20, 29, 31
_IFLA_MIN_MTU, _IFLA_MAX_MTU, _IFLA_PARENT_DEV_NAME = 50, 51, 56
_IFLA_NET_NS_FD, _IFLA_NEW_IFINDEX, _IFLA_PROP_LIST = 28, 49, 52
_IFLA_MASTER, _IFLA_AF_SPEC, _IFLA_LINK_NETNSID, _IFLA_PROTO_DOWN = 10, 26, 37, 39
_IFLA_INET6_FLAGS, _IFLA_INET6_ADDR_GEN_MODE = 1, 8
# IF_READY of net/if_inet6.h: IPv6 has configured the link.
_IF_READY = 0x80000000
# IN6_ADDR_GEN_MODE_*.
_GENERATIONS = {b"\0": "eui64", b"\1": "none"}
_IFLA_LINK, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 5, 1, 2, 4, 5
# The address that a port of a bond came with: as long as it is a port, it has that of the bond.
_IFLA_BOND_SLAVE_PERM_HWADDR = 4
_SKIP_STATISTICS = 8
# Bytes: IFALIASZ - 1 of linux/if.h, MODULE_NAME_LEN of linux/module.h.
_ALIAS_MAX, _KIND_MAX = 255, 64
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_BROADCAST, _IFA_ANYCAST, _IFA_CACHEINFO = 1, 2, 3, 4, 5, 6
_IFA_FLAGS, _IFA_RT_PRIORITY, _IFA_PROTO = 8, 9, 11
# struct ifa_cacheinfo begins with the seconds for which the address is preferred. _FOREVER: without end.
_FOREVER = 0xFFFFFFFF
# IFF_RUNNING means the same as IFF_LOWER_UP, but the kernel sets it a moment later.
_IFF_UP, _IFF_NOARP, _IFF_MULTICAST, _IFF_LOWER_UP = 0x1, 0x80, 0x1000, 0x10000
_IFA_F_NODAD, _IFA_F_DADFAILED, _IFA_F_TENTATIVE, _IFA_F_PERMANENT = 0x02, 0x08, 0x40, 0x80
# Flags that a person can set and no manifest has, by the words of iproute2.
_FLAG_WORDS = {0x10: "home", 0x20: "deprecated", 0x100: "mngtmpaddr", 0x400: "autojoin"}
_IFA_F_NOPREFIXROUTE = 0x200
_SCOPE_NAMES = {number: name for name, number in SCOPES.items()}
# From 5.18 on, the kernel marks addresses that it makes itself: loopback, router advertisement, link-local.
_IFAPROT_KERNEL = (1, 2, KERNEL_LINK_LOCAL)
# What the kernel adds to the name of a link as a label, after a rename: a number from 2 on (inetdev_changename).
_NUMBERED = re.compile(r":([2-9]|[1-9][0-9]+)")


@dataclass(slots=True)
class Link:
    """A link as dumped. `queues` is its maximum of transmit queues; `kind` is empty for most physical links.

    `ethernet`: whether its addresses are MAC addresses; if not, as of a tunnel, `hw_addr` is empty. `permanent`: the
    MAC address that the hardware came with; empty if the device has none. `mtus`: the least and the largest MTU that
    it accepts; a largest of 0: no limit.
    `master`: the index of the link that it is a port of, or 0; `state` has neither that link's name nor what its
    addresses tell. `parent`: whether a device of a bus stands behind it, as the kernel reports from 5.14 on.
    `peer_namespace`: the number, within the namespace of the link, of the one that its peer or the link below it is in;
    None if that is the same one, or if there is no such link. `link`: the index of the one that it lies on, or 0.
    `data`: the options of its kind, not decoded.
    """

    index: int
    name: str
    hw_addr: str
    mtu: int
    up: bool
    carrier: bool
    alias: str
    kind: str
    queues: int
    permanent: str = ""
    ethernet: bool = True
    mtus: tuple[int, int] = (0, 0)
    master: int = 0
    state: LinkState = UNKNOWN_STATE
    parent: bool = False
    peer_namespace: int | None = None
    link: int = 0
    data: bytes = b""
    attributes: Attributes = ()
    altnames: tuple[str, ...] = ()

    def to_origin(self, device: str, alias: str, *, up: bool) -> Origin:
        """Return what it becomes on the host when it returns there: as it is."""
        return Origin(
            device=device,
            hw_addr=self.hw_addr,
            mtu=self.mtu,
            alias=alias,
            up=up,
            attributes=tuple(each for each in self.attributes if each[0] != "alias"),
            altnames=self.altnames,
        )

    @property
    def physical(self) -> bool:
        """Return whether there is hardware behind it, or what passes for that, such as a NIC of QEMU."""
        return self.parent or not self.kind


@dataclass(slots=True)
class LinkAddress:
    """An address as dumped, with the index of its link. `permanent`: not leased, not from router advertisements.

    `protocol`: what made it, as the kernel reports it from 5.18 on. `label` is that of an IPv4 address. The others are
    those of `model.interface.Address`.
    """

    index: int
    address: str
    nodad: bool
    tentative: bool
    dad_failed: bool
    permanent: bool
    protocol: int = 0
    peer: str | None = None
    label: str = ""
    scope: str = "global"
    metric: int = 0
    noprefixroute: bool = False
    opaque: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return what identifies it on its link, as of `model.interface.Address`."""
        return address_key(self.address, self.peer)

    @property
    def from_kernel(self) -> bool:
        """Return whether the kernel has made it: loopback, link-local, from a router advertisement."""
        return self.protocol in _IFAPROT_KERNEL

    def to_model(self, link: Link, wishes: Mapping[str, str | None]) -> Address:
        """Return the address as a manifest would describe it, with what it cannot describe.

        `wishes`: key of a desired address → label. A number that the kernel has put into a label is none, unless it is
        desired.
        """
        ours = self.label.startswith(link.name)
        label = self.label if ours and self.label != link.name else None
        if label and self.key in wishes and label != wishes[self.key]:
            label = None if _NUMBERED.fullmatch(label.removeprefix(link.name)) else label
        words = () if ours or not self.label else (f"label {self.label}",)
        return Address(
            address=self.address,
            dad=not self.nodad,
            label=label,
            scope=self.scope,
            metric=self.metric,
            noprefixroute=self.noprefixroute,
            peer=self.peer,
            protocol=self.protocol,
            opaque=(*self.opaque, *words),
        )


def dump_links_request(sequence: int) -> bytes:
    """Build a request for all links, without their statistics."""
    body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + message.attribute(_IFLA_EXT_MASK, _U32.pack(_SKIP_STATISTICS))
    return message.pack(message.GET_LINK, message.REQUEST | message.DUMP, sequence, body)


def get_link_request(name: str, sequence: int) -> bytes:
    """Build a request for one link by its name."""
    body = (
        _IFINFOMSG.pack(0, 0, 0, 0, 0)
        + message.attribute(_IFLA_IFNAME, name.encode(errors="surrogateescape") + b"\0")
        + message.attribute(_IFLA_EXT_MASK, _U32.pack(_SKIP_STATISTICS))
    )
    return message.pack(message.GET_LINK, message.REQUEST | message.ACK, sequence, body)


def dump_addresses_request(sequence: int) -> bytes:
    """Build a request for all addresses of both families."""
    flags = message.REQUEST | message.DUMP
    return message.pack(message.GET_ADDRESS, flags, sequence, _IFADDRMSG.pack(0, 0, 0, 0, 0))


def decode_link(payload: bytes) -> Link:
    """Decode a link. ProtocolError for malformed bytes."""
    if len(payload) < _IFINFOMSG.size:
        raise ProtocolError(f"link message of {len(payload)} bytes")
    _, type_, index, flags, _ = _IFINFOMSG.unpack_from(payload)
    found = dict(message.attributes(payload, _IFINFOMSG.size))
    info = dict(message.attributes(found.get(_IFLA_LINKINFO, b"")))
    kind = info.get(_IFLA_INFO_KIND, b"")
    hw_addr = _own_address(info) or message.hardware_address(found.get(_IFLA_ADDRESS, b""))
    return Link(
        index=index,
        name=message.text(found.get(_IFLA_IFNAME, b""), NAME_MAX, "name of a link"),
        hw_addr=hw_addr if type_ == _ETHERNET else "",
        mtu=_number(found.get(_IFLA_MTU)),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        alias=message.text(found.get(_IFLA_IFALIAS, b""), _ALIAS_MAX, "alias of a link"),
        kind=message.text(kind, _KIND_MAX, "kind of a link"),
        queues=_number(found.get(_IFLA_NUM_TX_QUEUES)),
        permanent=message.hardware_address(found.get(_IFLA_PERM_ADDRESS, b"")),
        ethernet=type_ == _ETHERNET,
        mtus=(_number(found.get(_IFLA_MIN_MTU)), _number(found.get(_IFLA_MAX_MTU))),
        master=_number(found.get(_IFLA_MASTER)),
        state=_decode_state(type_, flags, found),
        parent=_IFLA_PARENT_DEV_NAME in found,
        peer_namespace=_number(found[_IFLA_LINK_NETNSID]) if _IFLA_LINK_NETNSID in found else None,
        link=_number(found.get(_IFLA_LINK)),
        data=info.get(_IFLA_INFO_DATA, b""),
        attributes=attribute.decode(flags, found),
        altnames=altnames.decode(found.get(_IFLA_PROP_LIST, b"")),
    )


def _own_address(info: Mapping[int, bytes]) -> str:
    """Return the MAC address that a port of a bond came with; "" for all other links."""
    if info.get(_IFLA_INFO_SLAVE_KIND) != b"bond\0":
        return ""
    found = dict(message.attributes(info.get(_IFLA_INFO_SLAVE_DATA, b"")))
    return message.hardware_address(found.get(_IFLA_BOND_SLAVE_PERM_HWADDR, b""))


def _decode_state(type_: int, flags: int, found: Mapping[int, bytes]) -> LinkState:
    families = dict(message.attributes(found.get(_IFLA_AF_SPEC, b"")))
    ipv6 = dict(message.attributes(families.get(AF_INET6, b"")))
    is_ready = type_ in _IPV6_TYPES and _number(ipv6.get(_IFLA_INET6_FLAGS)) & _IF_READY
    generation = ipv6.get(_IFLA_INET6_ADDR_GEN_MODE, b"\0") if type_ == _ETHERNET else b""
    return LinkState(
        ipv6=bool(flags & _IFF_UP and is_ready),
        generation=_GENERATIONS.get(generation, "other"),
        arp=not flags & _IFF_NOARP,
        multicast=bool(flags & _IFF_MULTICAST),
        broadcast=message.hardware_address(found.get(_IFLA_BROADCAST, b"")),
        held=any(found.get(_IFLA_PROTO_DOWN, b"")),
    )


def decode_address(payload: bytes) -> LinkAddress | None:
    """Decode an address; None for one of another family. ProtocolError for malformed bytes."""
    if len(payload) < _IFADDRMSG.size:
        raise ProtocolError(f"address message of {len(payload)} bytes")
    family, length, old_flags, scope, index = _IFADDRMSG.unpack_from(payload)
    size = {AF_INET: 4, AF_INET6: 16}.get(family)
    if size is None:
        return None
    found = dict(message.attributes(payload, _IFADDRMSG.size))
    # On a point-to-point link, IFA_ADDRESS is the address of the peer. IFA_LOCAL, if present, is the link's own.
    packed = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, b""))
    if len(packed) != size or length > size * 8:
        raise ProtocolError(f"address of {len(packed)} bytes with prefix length {length}")
    flags = _number(found[_IFA_FLAGS]) if _IFA_FLAGS in found else old_flags
    peer = found.get(_IFA_ADDRESS, packed)
    # IPv6 derives the scope from the address.
    named = _SCOPE_NAMES.get(scope) if size == 4 else "global"
    return LinkAddress(
        index=index,
        address=f"{unpack(packed)}/{length}",
        nodad=size == 16 and bool(flags & _IFA_F_NODAD),
        tentative=bool(flags & _IFA_F_TENTATIVE),
        dad_failed=bool(flags & _IFA_F_DADFAILED),
        permanent=bool(flags & _IFA_F_PERMANENT),
        protocol=int.from_bytes(found.get(_IFA_PROTO, b"")[:1]),
        peer=_address(peer, size) if peer != packed else None,
        label=message.text(found.get(_IFA_LABEL, b""), NAME_MAX, "label of an address"),
        scope=named or "global",
        metric=_number(found.get(_IFA_RT_PRIORITY)),
        noprefixroute=bool(flags & _IFA_F_NOPREFIXROUTE),
        opaque=(
            *_address_words(flags, found, f"{unpack(packed)}/{length}"),
            *(() if named else (f"scope {scope}",)),
        ),
    )


def _address_words(flags: int, found: Mapping[int, bytes], prefix: str) -> Iterator[str]:
    """Yield what no manifest can express, in the words of iproute2, without seconds: these change by themselves.

    The broadcast address of the network itself (`brd +`) is no word: the kernel has its routes without it as well.
    """
    size = 16 if is_ipv6(prefix) else 4
    if not flags & _IFA_F_PERMANENT:
        yield "dynamic"
    preferred = _number(found[_IFA_CACHEINFO][:4]) if _IFA_CACHEINFO in found else _FOREVER
    if 0 < preferred < _FOREVER and flags & _IFA_F_PERMANENT:
        yield "with a preferred_lft"
    yield from (word for flag, word in _FLAG_WORDS.items() if flags & flag)
    for kind, word in ((_IFA_BROADCAST, "brd"), (_IFA_ANYCAST, "any")):
        if kind in found and (other := _address(found[kind], size)) != _usual_broadcast(prefix):
            yield f"{word} {other}"


def _usual_broadcast(prefix: str) -> str:
    """Return the broadcast address of an IPv4 network, which one of two addresses or of one does not have."""
    return "" if is_ipv6(prefix) or prefix.endswith(("/31", "/32")) else last_address(prefix)


def _address(value: bytes, size: int) -> str:
    if len(value) != size:
        raise ProtocolError(f"address of {len(value)} bytes; {size} were expected")
    return unpack(value)


def _number(value: bytes | None) -> int:
    if value is None:
        return 0
    if len(value) != 4:
        raise ProtocolError(f"link attribute of {len(value)} bytes; 4 were expected")
    (number,) = _U32.unpack(value)
    return int(number)


def encode_move(index: int, name: str, alias: str, sequence: int, *, namespace: int, new_index: int = 0) -> bytes:
    """Build the request that moves a link to the namespace of the open file `namespace`, with this name and alias.

    If the link's present name is free there, the link has it there for a moment. `new_index`: what its index there
    will be; 0: the kernel chooses.
    """
    values = message.attribute(_IFLA_NET_NS_FD, _U32.pack(namespace))
    values += message.attribute(_IFLA_NEW_IFINDEX, _U32.pack(new_index)) if new_index else b""
    return _encode_link(index, values + _name(name) + _alias(alias), sequence)


def encode_aside(index: int, name: str, alias: str, sequence: int) -> bytes:
    """Build the request that gives a link that is down a name and an alias, before it moves."""
    return _encode_link(index, _name(name) + _alias(alias), sequence)


def encode_up(index: int, *, up: bool, sequence: int) -> bytes:
    """Build the request that sets a link up or down."""
    return _encode_link(index, b"", sequence, up=up)


def encode_attributes(index: int, attributes: Attributes, sequence: int) -> bytes:
    """Build the request that sets attributes of a link."""
    return _encode_link(index, b"", sequence, attributes=attributes)


def encode_restore(link: Link, origin: Origin, sequence: int) -> bytes:
    """Build the request that makes a link what it was. What is so already is not sent: some kinds refuse even that."""
    values = _name(origin.device) + _alias(origin.alias)
    values += _hw_addr(origin.hw_addr) if origin.hw_addr != link.hw_addr else b""
    values += _mtu(origin.mtu) if origin.mtu != link.mtu else b""
    attributes = changed(link.attributes, origin.attributes)
    return _encode_link(link.index, values, sequence, up=origin.up or None, attributes=attributes)


def encode_link(operation: LinkOperation, indexes: dict[str, int], sequence: int) -> bytes:
    """Build the request of an operation that changes a link in place. KeyError for an unknown name.

    `indexes`: of links by name; a rename updates it.
    """
    index = indexes[operation.name]
    match operation:
        case RenameInterface():
            indexes[operation.new_name] = indexes.pop(operation.name)
            return _encode_link(index, _name(operation.new_name), sequence)
        case AddAltnames():
            return altnames.encode(index, operation.altnames, sequence)
        case DeleteAltnames():
            return altnames.encode(index, operation.altnames, sequence, delete=True)
        case SetLink():
            values = _hw_addr(operation.hw_addr) if operation.hw_addr is not None else b""
            values += _mtu(operation.mtu) if operation.mtu is not None else b""
            if operation.master is not None:
                master = indexes[operation.master] if operation.master else 0
                values += message.attribute(_IFLA_MASTER, _U32.pack(master))
            return _encode_link(index, values, sequence, up=operation.up, attributes=operation.attributes)
        case _:
            assert_never(operation)


def _encode_link(
    index: int, values: bytes, sequence: int, *, up: bool | None = None, attributes: Attributes = ()
) -> bytes:
    flags, change, more = attribute.encode(attributes)
    if up is not None:
        flags, change = flags | _IFF_UP * up, change | _IFF_UP
    body = _IFINFOMSG.pack(0, 0, index, flags, change) + values + more
    return message.pack(message.NEW_LINK, message.REQUEST, sequence, body)


def _name(name: str) -> bytes:
    return message.attribute(_IFLA_IFNAME, name.encode(errors="surrogateescape") + b"\0")


def _alias(alias: str) -> bytes:
    return message.attribute(_IFLA_IFALIAS, alias.encode(errors="surrogateescape"))


def _hw_addr(hw_addr: str) -> bytes:
    return message.attribute(_IFLA_ADDRESS, bytes.fromhex(hw_addr.replace(":", "")))


def _mtu(mtu: int) -> bytes:
    return message.attribute(_IFLA_MTU, _U32.pack(mtu))


def encode_address(
    operation: AddAddress | ReplaceAddress | DeleteAddress, indexes: Mapping[str, int], sequence: int
) -> bytes:
    """Build the request of an address operation. KeyError for a NIC that `indexes` lacks.

    An addition replaces an equal address, so that a run that was killed can be repeated.
    """
    packed, length = split_prefix(operation.address.address)
    text = unpack(packed)
    values: list[tuple[str, str | int]] = [("IFA_LOCAL", text), ("IFA_ADDRESS", operation.address.peer or text)]
    kind, flags = message.DELETE_ADDRESS, message.REQUEST
    if not isinstance(operation, DeleteAddress):
        kind = message.NEW_ADDRESS
        flags |= message.CREATE | message.REPLACE
        address = operation.address
        nodad, noprefixroute = 0 if address.dad else _IFA_F_NODAD, _IFA_F_NOPREFIXROUTE * address.noprefixroute
        values.append(("IFA_FLAGS", _IFA_F_PERMANENT | nodad | noprefixroute))
        values += [("IFA_LABEL", address.label)] if address.label else []
        values += [("IFA_RT_PRIORITY", address.metric)] if address.metric else []
        if operation.address.protocol:
            values.append(("IFA_PROTO", operation.address.protocol))
    fields = {
        "family": AF_INET6 if is_ipv6(text) else AF_INET,
        "prefixlen": length,
        "index": indexes[operation.device],
        "scope": SCOPES[operation.address.scope],
        "attrs": values,
    }
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    return _encode(ifaddrmsg(), kind, flags, sequence, fields)


def _encode(request: Any, kind: int, flags: int, sequence: int, fields: Mapping[str, Any]) -> bytes:
    """Encode a pyroute2 message."""
    for name, value in fields.items():
        request[name] = value
    request["header"] = {"type": kind, "flags": flags, "sequence_number": sequence, "pid": 0}
    request.encode()
    return bytes(request.data)
