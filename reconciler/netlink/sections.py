"""The sections of a sandbox that the route family of netlink has as lists: how each is observed, changed and followed.

A new kind of object has a line in TABLES, and a case in `encode` and `is_gone`. Links and addresses are observed by
`drivers.inside`, as only a driver knows which of them are ours.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from operator import or_
from socket import AF_INET, AF_INET6
from typing import Any, NamedTuple, assert_never

from reconciler.model.mark import PROTOCOL
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import TABLE_MAIN
from reconciler.model.rule import KERNEL_TABLES, Rule
from reconciler.model.sandbox import Sandbox
from reconciler.netlink import interface, neighbour, route, rule
from reconciler.netlink.engine import Engine
from reconciler.operations import Operation
from reconciler.operations.address import AddAddress, AwaitAddress, DeleteAddress, ReplaceAddress
from reconciler.operations.interface import RenameInterface, SetLink
from reconciler.operations.item import AddItem, DeleteItem, ItemOperation, ReplaceItem
from reconciler.operations.network import NetworkOperation
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute


class Found(NamedTuple):
    """The objects of a section that are ours, and those of others."""

    ours: tuple[Any, ...] = ()
    foreign: tuple[Any, ...] = ()


class Table(NamedTuple):
    """How a section is read. `groups`: the bits of rtnetlink.h's RTMGRP_* that tell of changes.

    `is_wanted`: whether a plan for this sandbox has to know of it.
    """

    name: str
    groups: int
    is_wanted: Callable[[Sandbox], bool]
    observe: Callable[[Engine, Mapping[str, int], Sandbox], Found]


def _routes(engine: Engine, indexes: Mapping[str, int], desired: Sandbox) -> Found:
    found = engine.routes(indexes, desired.routes or ())
    return Found(tuple(found.ours), tuple(found.foreign))


def _rules(engine: Engine, indexes: Mapping[str, int], desired: Sandbox) -> Found:
    del indexes, desired
    dumped = (each for family in (AF_INET, AF_INET6) for each in engine.dump(partial(rule.dump_request, family)))
    return _sorted(rule.decode(each.payload) for each in dumped if each.type == rule.NEW)


def _neighbours(engine: Engine, indexes: Mapping[str, int], desired: Sandbox) -> Found:
    del desired
    names = {index: name for name, index in indexes.items()}
    dumped = (each for proxy in (False, True) for each in engine.dump(partial(neighbour.dump_request, proxy=proxy)))
    return _sorted(neighbour.decode(each.payload, names) for each in dumped if each.type == neighbour.NEW)


def _sorted(decoded: Iterable[tuple[int, Any] | None]) -> Found:
    known = [each for each in decoded if each is not None]
    ours = tuple(item for protocol, item in known if protocol == PROTOCOL)
    return Found(ours, tuple(item for protocol, item in known if protocol != PROTOCOL))


def _has_tables(desired: Sandbox) -> bool:
    """Return whether rules are asked for, or routes that only a rule makes useful."""
    tables = {TABLE_MAIN, *KERNEL_TABLES}
    return desired.rules is not None or any(each.table not in tables for each in desired.routes or ())


def _has_nics(desired: Sandbox) -> bool:
    """Return whether neighbours are asked for, or may be lost as NICs change."""
    return desired.neighbours is not None or desired.interfaces is not None


# RTMGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR.
_NIC_GROUPS = 0x1 | 0x10 | 0x100
TABLES = (
    # RTMGRP_NEIGH.
    Table("neighbours", 0x4, _has_nics, _neighbours),
    # RTMGRP_IPV4_ROUTE, _IPV6_ROUTE.
    Table("routes", 0x40 | 0x400, lambda _: True, _routes),
    # RTMGRP_IPV4_RULE, and RTNLGRP_IPV6_RULE, the 19th.
    Table("rules", 0x80 | 1 << 18, _has_tables, _rules),
)
# What is to be listened to.
GROUPS = reduce(or_, (table.groups for table in TABLES), _NIC_GROUPS)


def encode(operation: NetworkOperation, indexes: dict[str, int], sequence: int) -> bytes:
    """Build the message of an operation. `indexes`: of links by name, kept true across renames. KeyError for another."""
    match operation:
        case AddRoute() | ReplaceRoute() | DeleteRoute():
            return route.encode(operation, indexes, sequence)
        case AddAddress() | ReplaceAddress() | DeleteAddress():
            return interface.encode_address(operation, indexes, sequence)
        case SetLink():
            return interface.encode_link(operation, indexes[operation.name], sequence)
        case RenameInterface():
            index = indexes[operation.new_name] = indexes.pop(operation.name)
            return interface.encode_link(operation, index, sequence)
        case AddItem() | ReplaceItem() | DeleteItem():
            return _encode_item(operation, indexes, sequence)
        case AwaitAddress():
            raise TypeError("AwaitAddress is no message")
        case _:
            assert_never(operation)


def _encode_item(operation: ItemOperation, indexes: Mapping[str, int], sequence: int) -> bytes:
    match operation.item:
        case Rule():
            return rule.encode(operation, operation.item, sequence)
        case Neighbour():
            return neighbour.encode(operation, operation.item, indexes, sequence)
        case _:
            assert_never(operation.item)


def is_gone(operation: Operation, code: int) -> bool:
    """Return whether a deletion failed only because there is nothing (left) to delete."""
    if isinstance(operation, DeleteRoute):
        return code == errno.ESRCH
    if isinstance(operation, DeleteItem):
        return code == errno.ENOENT
    # ENXIO: IPv6 is off on this link, as after an MTU below its minimum.
    return isinstance(operation, DeleteAddress) and code in (errno.EADDRNOTAVAIL, errno.ENXIO)
