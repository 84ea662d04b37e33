"""`reconciler import --live`: all that is in a sandbox, whoever made it, as a manifest for `apply --adopt`."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from reconciler.cli.output import print_documents, warn
from reconciler.drivers import inventory
from reconciler.drivers.survey import Inventory
from reconciler.formats.iproute2 import Item, address_words, item_words, protocol_words, route_words
from reconciler.manifest import route, rule
from reconciler.manifest.expressible import is_expressible, leave_out
from reconciler.manifest.made import unsayable
from reconciler.manifest.sandbox import write
from reconciler.manifest.sections import SECTIONS, everything
from reconciler.model.interface import Interface
from reconciler.model.mark import PROTOCOL
from reconciler.model.neighbour import Neighbour
from reconciler.model.policy import Policy
from reconciler.model.route import PROTOCOL_KERNEL, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import Sandbox
from reconciler.plan.adoption import KERNEL_PROTOCOLS
from reconciler.values import replace

# RTPROT_* below RTPROT_STATIC, and that: somebody typed it, or a script did. Others are programs that may still run.
_TYPED = frozenset({0, 3, 4, PROTOCOL})


def run(head: Sandbox) -> int:
    """Print the manifest of a sandbox on stdout, and on stderr a line for each thing that it lacks."""
    found = inventory(everything(head), Policy(may_push=True))
    document, left = _document(found)
    for line in left:
        warn(f"{head.id}: left out: {line}")
    for line in _notes(found, document):
        warn(f"{head.id}: {line}")
    print_documents([document])
    return 0


def _document(found: Inventory) -> tuple[dict[str, Any], list[str]]:
    """Return the manifest, which is valid, and what it lacks, in words."""
    left: list[str] = []
    sandbox, around = found.observed.sandbox, found.observed.around
    bare = _bare(sandbox.interfaces or (), (*(sandbox.neighbours or ()), *around.neighbours))
    interfaces = [each for each in sandbox.interfaces or () if each.name not in bare and _is_whole(each, left)]
    interfaces = list(_without_derived(interfaces))
    left += [f"interfaces: {name}: it is down, and nothing is set on it" for name in sorted(bare)]
    left += [f"interfaces: {name}: {reason}" for name, reason in found.left.items()]
    names = {each.name for each in sandbox.interfaces or ()} - {each.name for each in interfaces} | found.left.keys()
    # Without any interface, routes may lead through all of them: of a section that is absent nothing is checked.
    gone = frozenset(names) if interfaces else frozenset()
    ipvs = sandbox.ipvs
    services = (*(ipvs.services or ()), *around.services) if ipvs else ()
    document = write(
        replace(
            sandbox,
            sysctls=None,
            interfaces=tuple(interfaces) or None,
            neighbours=tuple(_items((*(sandbox.neighbours or ()), *around.neighbours), gone, left)) or None,
            routes=tuple(_routes((*(sandbox.routes or ()), *around.routes, *around.local_table), gone, left)) or None,
            rules=tuple(_items((*(sandbox.rules or ()), *around.rules), gone, left)) or None,
            ipvs=replace(ipvs, services=services) if ipvs and services else None,
        )
    )
    sections = [section.name for section in SECTIONS]
    left += leave_out(document, sections)
    # An empty list would mean: none of ours.
    return {name: value for name, value in document.items() if value or name not in sections}, left


def _bare(interfaces: Iterable[Interface], neighbours: Iterable[Neighbour]) -> set[str]:
    """Return the names of the interfaces that are down and have nothing but what every link has.

    One that another interface lies on or is a port of, or that has neighbours, is none.
    """
    used = {name for each in interfaces for name in each.beneath} | {each.device for each in neighbours}
    return {
        each.name
        for each in interfaces
        if not (each.up or each.addresses or each.attributes or each.altnames or each.beneath or each.name in used)
        and (each.made is None or each.made.is_plain)
    }


def _is_whole(interface: Interface, left: list[str]) -> bool:
    """Return whether a manifest can say all of a NIC: `apply` would delete or change an address that it lacks.

    Add to `left` what it cannot say.
    """
    words = [f"address {address_words(each)}" for each in interface.addresses if each.opaque]
    words += [f"{name} {value}" for name, value in unsayable(interface.made).items()] if interface.made else []
    left += [f"interfaces: {interface.name}: no manifest can express its {each}" for each in words]
    return not words


def _without_derived(interfaces: Sequence[Interface]) -> Iterator[Interface]:
    """Yield interfaces. Those that are made there leave a MAC address to the kernel that is that of a link or port."""
    owners = defaultdict[str, set[str]](set)
    for each in interfaces:
        owners[each.hw_addr].add(each.name)
    ports = {(each.master, each.name) for each in interfaces}
    for each in interfaces:
        others = owners[each.hw_addr] if each.made else set[str]()
        derived = each.made and (each.made.link in others or any((each.name, other) in ports for other in others))
        yield replace(each, hw_addr="") if derived else each


def _routes(routes: tuple[Route, ...], gone: frozenset[str], left: list[str]) -> Iterator[Route]:
    """Yield the routes that a manifest can have, without those that the kernel makes by itself.

    `gone`: the interfaces that it lacks.
    """
    for each in routes:
        if each.protocol == PROTOCOL_KERNEL:
            continue
        if each.protocol in KERNEL_PROTOCOLS:
            left.append(f"routes: {route_words(each)}: the kernel made it, {protocol_words(each.protocol)}")
        elif each.opaque or not is_expressible(each):
            left.append(f"routes: no manifest can express {route_words(each)}")
        elif each.devices & gone:
            left.append(f"routes: {route_words(each)}: its interface is left out")
        else:
            yield each


def _items(items: tuple[Any, ...], gone: frozenset[str], left: list[str]) -> Iterator[Any]:
    """Yield the rules or neighbours that a manifest can have, without the kernel's own rules."""
    item: Item
    for item in items:
        if isinstance(item, Rule) and item.protocol == PROTOCOL_KERNEL:
            continue
        if item.opaque:
            left.append(f"{item.section}: no manifest can express {item_words(item)}")
        elif item.nic in gone:
            left.append(f"{item.section}: {item_words(item)}: its interface is left out")
        else:
            yield item


def _notes(found: Inventory, document: dict[str, Any]) -> Iterator[str]:
    """Yield what a person has to know of what the manifest has."""
    devices = {each["device"]: each["name"] for each in document.get("interfaces", ()) if "device" in each}
    # QEMU knows the TAP of a NIC.
    nameless = frozenset[str]() if found.observed.around.machine else found.observed.around.unrecorded
    for device in sorted(nameless & devices.keys()):
        yield (
            f"interfaces: the name that {devices[device]} had on the host is not known; `device: {device}` is the name "
            "that it gets there when it leaves the sandbox"
        )
    around = found.observed.around
    written = {json.dumps(each) for name in ("routes", "rules") for each in document.get(name, ())}
    made_by = [(each.protocol, route.write(each)) for each in around.routes]
    made_by += [(each.protocol, rule.write(each)) for each in around.rules]
    counts = Counter(protocol for protocol, data in made_by if protocol not in _TYPED and json.dumps(data) in written)
    for protocol, count in sorted(counts.items()):
        yield (
            f"{count:,} of the routes and rules have {protocol_words(protocol)}: if the program that made them still "
            "runs, it may change them again; leave those out of the manifest then"
        )
