"""The sections of a sandbox that netlink's route family dumps as lists: how each is observed, changed and watched.

A new kind of object has a line in TABLES, and a case in `encode` and `is_gone`. Links and addresses are observed by
`drivers.inside`, because only a driver knows which of them are ours.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from operator import or_
from socket import AF_INET, AF_INET6
from types import MappingProxyType
from typing import Any, assert_never

from reconciler.model.mark import PROTOCOL
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import PROTOCOL_KERNEL, TABLE_MAIN
from reconciler.model.rule import KERNEL_TABLES, Rule
from reconciler.model.sandbox import Sandbox
from reconciler.netlink import interface, made, neighbour, route, rule
from reconciler.netlink.engine import Engine
from reconciler.operations import Operation
from reconciler.operations.address import AddAddress, AwaitAddress, DeleteAddress, ReplaceAddress
from reconciler.operations.interface import AddAltnames, DeleteAltnames, RenameInterface, SetLink
from reconciler.operations.item import AddItem, DeleteItem, ItemOperation, ReplaceItem
from reconciler.operations.made import AddLink, ChangeLink, DeleteLink, MarkLink
from reconciler.operations.network import NetworkOperation
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.values import NamedTuple


class SectionObjects(NamedTuple):
    """The observed objects of a section: ours, the foreign ones, and what else it tells of the surroundings."""

    ours: tuple[Any, ...] = ()
    foreign: tuple[Any, ...] = ()
    around: Mapping[str, Any] = MappingProxyType({})


class KernelTable(NamedTuple):
    """How a section is read. `groups`: the bits of rtnetlink.h's RTMGRP_* of its notifications.

    `is_wanted` returns whether the plan for a sandbox needs the objects of this section.
    """

    name: str
    groups: int
    is_wanted: Callable[[Sandbox], bool]
    observe: Callable[[Engine, Mapping[str, int], Sandbox], SectionObjects]


def _routes(engine: Engine, indexes: Mapping[str, int], desired: Sandbox) -> SectionObjects:
    found = engine.routes(indexes, desired.routes or ())
    around = {"local_table": tuple(found.local), "in_front": tuple(found.in_front)}
    return SectionObjects(tuple(found.ours), tuple(found.foreign), around)


def _rules(engine: Engine, indexes: Mapping[str, int], desired: Sandbox) -> SectionObjects:
    del indexes, desired
    dumped = (each for family in (AF_INET, AF_INET6) for each in engine.dump(partial(rule.dump_request, family)))
    return _sorted(rule.decode(each.payload) for each in dumped if each.type == rule.NEW)


def _neighbours(engine: Engine, indexes: Mapping[str, int], desired: Sandbox) -> SectionObjects:
    del desired
    names = {index: name for name, index in indexes.items()}
    dumped = (each for proxy in (False, True) for each in engine.dump(partial(neighbour.dump_request, proxy=proxy)))
    return _sorted(neighbour.decode(each.payload, names) for each in dumped if each.type == neighbour.NEW)


def _sorted(decoded: Iterable[tuple[int, Any] | None]) -> SectionObjects:
    known = [each for each in decoded if each is not None]
    ours = tuple(item for protocol, item in known if protocol == PROTOCOL)
    return SectionObjects(ours, tuple(item for protocol, item in known if protocol != PROTOCOL))


def _has_tables(desired: Sandbox) -> bool:
    """Return whether the manifest describes rules, or routes that have no effect without a rule."""
    tables = {TABLE_MAIN, *KERNEL_TABLES}
    return desired.rules is not None or any(each.table not in tables for each in desired.routes or ())


def is_ipvs_only(desired: Sandbox) -> bool:
    """Return whether the manifest describes an IPVS table and nothing else."""
    network = desired.sysctls, desired.interfaces, desired.neighbours, desired.routes, desired.rules
    return desired.ipvs is not None and all(each is None for each in network)


def _has_nics(desired: Sandbox) -> bool:
    """Return whether the manifest describes neighbours, or changes of NICs may delete some."""
    return desired.neighbours is not None or desired.interfaces is not None


# RTMGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR.
_NIC_GROUPS = 0x1 | 0x10 | 0x100
TABLES = (
    # RTMGRP_NEIGH.
    KernelTable("neighbours", 0x4, _has_nics, _neighbours),
    # RTMGRP_IPV4_ROUTE, _IPV6_ROUTE.
    KernelTable("routes", 0x40 | 0x400, lambda desired: not is_ipvs_only(desired), _routes),
    # RTMGRP_IPV4_RULE, and RTNLGRP_IPV6_RULE, the 19th.
    KernelTable("rules", 0x80 | 1 << 18, _has_tables, _rules),
)
# RTNLGRP_IPV4_NETCONF and _IPV6_NETCONF, the 24th and 25th: of some sysctls, such as forwarding and rp_filter.
_SYSCTL_GROUPS = 1 << 23 | 1 << 24
# The groups of all notifications that matter.
GROUPS = reduce(or_, (table.groups for table in TABLES), _NIC_GROUPS | _SYSCTL_GROUPS)


def encode(operation: NetworkOperation, indexes: dict[str, int], sequence: int) -> bytes:
    """Build the message of an operation. KeyError for an unknown name.

    `indexes`: of links by name; a rename updates it.
    """
    match operation:
        case AddRoute() | ReplaceRoute() | DeleteRoute():
            return route.encode(operation, indexes, sequence)
        case AddAddress() | ReplaceAddress() | DeleteAddress():
            return interface.encode_address(operation, indexes, sequence)
        case SetLink():
            return interface.encode_link(operation, indexes, sequence)
        case AddLink() | ChangeLink() | MarkLink() | DeleteLink():
            return made.encode(operation, indexes, sequence)
        case RenameInterface() | AddAltnames() | DeleteAltnames():
            return interface.encode_link(operation, indexes, sequence)
        case AddItem() | ReplaceItem() | DeleteItem():
            return _encode_item(operation, indexes, sequence)
        case AwaitAddress():
            raise TypeError("AwaitAddress has no message")
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
    """Return whether a deletion failed only because its object is already gone, or an addition because it is there.

    The latter is true of what the kernel derives: it may have done so meanwhile.
    """
    if isinstance(operation, AddRoute):
        return operation.route.protocol == PROTOCOL_KERNEL and code == errno.EEXIST
    if isinstance(operation, DeleteRoute):
        return code == errno.ESRCH
    if isinstance(operation, DeleteItem | DeleteAltnames):
        return code == errno.ENOENT
    if isinstance(operation, DeleteLink):
        return code == errno.ENODEV
    # ENXIO: IPv6 is off on this link, as after an MTU below its minimum.
    return isinstance(operation, DeleteAddress) and code in (errno.EADDRNOTAVAIL, errno.ENXIO)
