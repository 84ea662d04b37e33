"""A rule of policy routing in netlink's format: encode an operation, decode a dump.

Source: include/uapi/linux/fib_rules.h (struct fib_rule_hdr, enum FRA_*, FR_ACT_*), net/core/fib_rules.c.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from socket import AF_INET, AF_INET6
from typing import assert_never

from reconciler.errors import ProtocolError
from reconciler.model.address import split_prefix, unpack
from reconciler.model.interface import NAME_MAX
from reconciler.model.rule import ALL_BITS, NO_SUPPRESSION, Rule
from reconciler.netlink import message
from reconciler.operations.item import AddItem, DeleteItem, ItemOperation, ReplaceItem

# RTM_NEWRULE, _DELRULE, _GETRULE.
NEW, DELETE, GET = 32, 33, 34
# Family, bits of the destination and of the source, type of service, table, action, flags.
_HEADER = struct.Struct("=BBBBBxxBI")
_U32 = struct.Struct("=I")
_UIDS = struct.Struct("=II")
_PORTS = struct.Struct("=HH")

# enum FRA_*.
_DST, _SRC, _IIF, _GOTO, _PRIORITY, _FWMARK = 1, 2, 3, 4, 6, 10
_SUPPRESS, _TABLE, _FWMASK, _OIF = 14, 15, 16, 17
_L3MDEV, _UID_RANGE, _PROTOCOL, _IP_PROTO, _SPORT, _DPORT = 19, 20, 21, 22, 23, 24
_KNOWN = {
    *(_DST, _SRC, _IIF, _GOTO, _PRIORITY, _FWMARK, _SUPPRESS, _TABLE, _FWMASK, _OIF),
    *(_L3MDEV, _UID_RANGE, _PROTOCOL, _IP_PROTO, _SPORT, _DPORT),
}
# FRA_SPORT_MASK, FRA_DPORT_MASK: later kernels dump a mask of all bits with a single port.
_PORT_MASKS, _WHOLE_PORT = {28, 29}, b"\xff\xff"
# FRA_FLOW, FRA_TUN_ID, FRA_SUPPRESS_IFGROUP.
_OTHERS = {11: "realms", 12: "tun_id", 13: "suppress_ifgroup"}
# FIB_RULE_INVERT. The kernel sets the other flags itself.
_INVERT = 0x2
# FR_ACT_*; the rejecting actions have the numbers of the types of routes. No manifest has `nop`, nor those without a
# name here: the kernel drops the packets of such a rule.
_ACTIONS = {"table": 1, "goto": 2, "nop": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_OTHER_ACTION = "action-"
_ACTION_NAMES = {number: name for name, number in _ACTIONS.items()}
_FAMILIES = {"ipv4": AF_INET, "ipv6": AF_INET6}
_FAMILY_NAMES = {number: name for name, number in _FAMILIES.items()}
_SIZES = {"ipv4": 4, "ipv6": 16}
# RT_TABLE_COMPAT: the table is in the attribute.
_COMPAT = 252


def dump_request(family: int, sequence: int) -> bytes:
    """Build a request for all rules of a family (AF_INET, AF_INET6)."""
    flags = message.REQUEST | message.DUMP
    return message.pack(GET, flags, sequence, _HEADER.pack(family, *[0] * 6))


def encode(operation: ItemOperation, rule: Rule, sequence: int) -> bytes:
    """Build the request of an operation on `rule`."""
    match operation:
        case AddItem():
            kind, flags = NEW, message.CREATE | message.EXCLUSIVE
        case DeleteItem():
            kind, flags = DELETE, 0
        case ReplaceItem():
            raise TypeError("the kernel cannot replace a rule")
        case _:
            assert_never(operation)
    return message.pack(kind, message.REQUEST | flags, sequence, encode_body(rule))


def encode_body(rule: Rule) -> bytes:
    """Build the header and attributes of a rule."""
    to, source = _network(rule.to), _network(rule.from_)
    header = _HEADER.pack(
        _FAMILIES[rule.family],
        to[1],
        source[1],
        rule.tos,
        rule.table if rule.table < 256 else _COMPAT,
        _ACTIONS.get(rule.action) or int(rule.action.removeprefix(_OTHER_ACTION)),
        _INVERT if rule.invert else 0,
    )
    found: list[tuple[int, bytes | None]] = [
        (_PROTOCOL, bytes((rule.protocol,))),
        (_PRIORITY, _U32.pack(rule.priority)),
        (_TABLE, _U32.pack(rule.table) if rule.table else None),
        (_DST, to[0]),
        (_SRC, source[0]),
        (_IIF, _name(rule.iif)),
        (_OIF, _name(rule.oif)),
        (_FWMARK, _U32.pack(rule.fwmark) if rule.fwmask else None),
        (_FWMASK, _U32.pack(rule.fwmask) if rule.fwmask else None),
        (_UID_RANGE, rule.uidrange and _UIDS.pack(*rule.uidrange)),
        (_IP_PROTO, bytes((rule.ipproto,)) if rule.ipproto else None),
        (_SPORT, rule.sport and _PORTS.pack(*rule.sport)),
        (_DPORT, rule.dport and _PORTS.pack(*rule.dport)),
        (_L3MDEV, b"\1" if rule.l3mdev else None),
        (_GOTO, _U32.pack(rule.goto) if rule.action == "goto" else None),
        (_SUPPRESS, _U32.pack(rule.suppress_prefixlength & ALL_BITS)),
    ]
    return header + b"".join(message.attribute(kind, value) for kind, value in found if value is not None)


def _network(prefix: str | None) -> tuple[bytes | None, int]:
    return (None, 0) if prefix is None else split_prefix(prefix)


def _name(name: str | None) -> bytes | None:
    return None if name is None else name.encode(errors="surrogateescape") + b"\0"


def decode(payload: bytes) -> tuple[int, Rule] | None:
    """Decode a dumped rule: return its protocol and the rule. None for another family.

    ProtocolError for malformed bytes.
    """
    if len(payload) < _HEADER.size:
        raise ProtocolError(f"rule message of {len(payload)} bytes")
    family, to_bits, from_bits, tos, table, action, flags = _HEADER.unpack_from(payload)
    if family not in _FAMILY_NAMES:
        return None
    action_name = _ACTION_NAMES.get(action, f"{_OTHER_ACTION}{action}")
    name = _FAMILY_NAMES[family]
    found = dict(message.attributes(payload, _HEADER.size))
    size = _SIZES[name]
    if max(to_bits, from_bits) > size * 8:
        raise ProtocolError(f"rule with a prefix of {max(to_bits, from_bits)} bits")
    mark, table = _number(found, _FWMARK, 0), _number(found, _TABLE, table)
    suppress = _number(found, _SUPPRESS, ALL_BITS)
    others = [(kind, value) for kind, value in found.items() if not _is_known(kind, value)]
    protocol = _byte(found, _PROTOCOL)
    return protocol, Rule(
        family=name,
        priority=_number(found, _PRIORITY, 0),
        from_=_decode_network(found.get(_SRC), from_bits, size),
        to=_decode_network(found.get(_DST), to_bits, size),
        iif=_text(found.get(_IIF)),
        oif=_text(found.get(_OIF)),
        fwmark=mark,
        fwmask=_number(found, _FWMASK, ALL_BITS if mark else 0),
        ipproto=_byte(found, _IP_PROTO),
        sport=_range(found, _SPORT, _PORTS),
        dport=_range(found, _DPORT, _PORTS),
        uidrange=_range(found, _UID_RANGE, _UIDS),
        tos=tos,
        suppress_prefixlength=NO_SUPPRESSION if suppress == ALL_BITS else suppress,
        l3mdev=bool(_byte(found, _L3MDEV)),
        invert=bool(flags & _INVERT),
        action=action_name,
        table=table if action_name == "table" else 0,
        goto=_number(found, _GOTO, 0),
        protocol=protocol,
        opaque=tuple(_words(kind, value) for kind, value in others),
    )


def _is_known(kind: int, value: bytes) -> bool:
    return kind in _KNOWN or (kind in _PORT_MASKS and value == _WHOLE_PORT)


def _words(kind: int, value: bytes) -> str:
    """Return an attribute that no manifest can express in the words of iproute2."""
    return f"{_OTHERS.get(kind, f'attribute {kind}')} {message.number(value, 'attribute of a rule')}"


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ProtocolError(f"rule attribute of {len(value)} bytes; {size} were expected")
    return value


def _number(found: Mapping[int, bytes], kind: int, default: int) -> int:
    return int(_U32.unpack(_sized(found[kind], 4))[0]) if kind in found else default


def _byte(found: Mapping[int, bytes], kind: int) -> int:
    return _sized(found[kind], 1)[0] if kind in found else 0


def _range(found: Mapping[int, bytes], kind: int, form: struct.Struct) -> tuple[int, int] | None:
    if kind not in found:
        return None
    first, last = form.unpack(_sized(found[kind], form.size))
    return first, last


def _decode_network(value: bytes | None, bits: int, size: int) -> str | None:
    if value is None:
        return None
    return f"{unpack(_sized(value, size))}/{bits}"


def _text(value: bytes | None) -> str | None:
    return None if value is None else message.text(value, NAME_MAX, "name of a link")
