"""Interfaces of a manifest that are made in the sandbox: checked data → model, model → data, and checks of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.manifest.finding import Finding, Path
from reconciler.model.interface import Interface
from reconciler.model.made import KINDS, Made, Value, applicable, made
from reconciler.wording import suggest

# What only a device of the host has.
_OF_A_DEVICE = ("queues", "vhostUserSocket")
# Kinds that the kernel takes as a port of no bridge, and as no port at all (IFF_DONT_BRIDGE; net/bridge/br_if.c).
_NOT_IN_A_BRIDGE, _NO_PORTS = frozenset({"bridge", "macvlan"}), frozenset({"vrf"})


def kind_of(data: Mapping[str, Any]) -> str | None:
    """Return the kind of an interface that is made in the sandbox; None if it is a device of the host."""
    return next((kind for kind in KINDS if kind in data), None)


def read(kind: str, data: Mapping[str, Any], path: Path, findings: list[Finding]) -> Made:
    """Read what an interface is made as, and add to `findings` what it cannot have."""
    values: Mapping[str, Value] = data[kind]
    for field in _OF_A_DEVICE:
        if field in data:
            message = f"only a device of the host has {field}, and this interface is made in the sandbox"
            findings.append(Finding((*path, field), message, at_key=True))
    possible = {option.name for option in applicable(kind, values)}
    for option in KINDS[kind].options:
        if option.name in values and option.name not in possible:
            message = f"only a {kind} with mode {option.only_with} has it"
            findings.append(Finding((*path, kind, option.name), message, at_key=True))
    if kind == "vrf" and values["table"] in {253, 254}:
        message = f"{values['table']} is a table of the sandbox itself; a VRF needs one of its own, such as 1000"
        findings.append(Finding((*path, kind, "table"), message))
    return made(kind, values, str(values.get("link", "")))


def write(found: Made) -> dict[str, Any]:
    """Return what an interface is made as, without defaults, and without what no manifest can ask for."""
    link = {"link": found.link} if found.link else {}
    known = {option.name: option for option in KINDS[found.kind].options}
    left_out = unsayable(found)
    said = ((name, value) for name, value in found.options if name not in left_out)
    return {found.kind: link | {name: value for name, value in said if value != known[name].default}}


def unsayable(found: Made) -> dict[str, Value]:
    """Return the options that no manifest can ask for: their numbers have no names, or are no whole units."""
    names = {option.name: option.names for option in KINDS[found.kind].options}
    return {name: value for name, value in found.options if isinstance(value, str) and value not in names[name]}


def words(found: Made) -> str:
    """Return the kind and the link of an interface that is made in the sandbox."""
    return f"{found.kind} on {found.link}" if found.link else found.kind


def check(interfaces: Sequence[Interface | None]) -> Iterator[Finding]:
    """Check what interfaces lie on and what they are ports of, as far as they could be read."""
    known = {each.name: each for each in interfaces if each}
    complete = None not in interfaces
    above = _above(known)
    tags: dict[tuple[object, ...], str] = {}
    for index, each in enumerate(interfaces):
        if each is None:
            continue
        if each.made and each.made.link:
            path: Path = ("interfaces", index, each.made.kind, "link")
            yield from (Finding(path, text) for text in _link_words(each.made, known, up=each.up, complete=complete))
            tag = (each.made.kind, each.made.link, each.made.options)
            if each.made.kind == "vlan" and tags.setdefault(tag, each.name) != each.name:
                path = ("interfaces", index, "vlan", "id")
                yield Finding(path, f"{tags[tag]} has this ID on {each.made.link} already")
        if each.master:
            path = ("interfaces", index, "master")
            yield from (Finding(path, text) for text in _master_words(each, known, complete=complete))
        if cycle := _cycle(each.name, above):
            path = ("interfaces", index, *_lying(each, cycle))
            yield Finding(path, f"{each.name} lies on itself: {' → '.join(cycle)}")
        yield from _mtu(index, each, known)


def _lying(each: Interface, cycle: Sequence[str]) -> Path:
    """Return the field by which an interface takes part in a cycle."""
    if each.master in cycle:
        return ("master",)
    return (each.made.kind, "link") if each.made and each.made.link else ()


def _link_words(own: Made, known: Mapping[str, Interface], *, up: bool, complete: bool) -> Iterator[str]:
    if own.link not in known:
        yield from _unknown(own.link, known, complete=complete)
        return
    below = known[own.link]
    if up and not below.up:
        yield f"{own.link} has state: down, and the kernel sets no {own.kind} up on a link that is down"
    if below.made and below.made.is_routed:
        yield f"{own.link} is a VRF, which carries no frames of a {own.kind}"
    if not below.has_mac:
        yield f"{own.link} has no hwAddr, so it carries no frames of a {own.kind}"
    if below.made and own.kind == below.made.kind == "macvlan":
        yield f"{own.link} is a macvlan, and the kernel puts this one beside it, on {below.made.link}; name that link"
    master = known.get(below.master)
    if own.kind == "macvlan" and master and master.made and not master.made.is_routed:
        yield f"{own.link} is a port of {below.master}, so no macvlan can lie on it; put it on {below.master}"


def _master_words(each: Interface, known: Mapping[str, Interface], *, complete: bool) -> Iterator[str]:
    master = known.get(each.master)
    if master is None:
        yield from _unknown(each.master, known, complete=complete)
        return
    kind = master.made.kind if master.made else ""
    own = each.made.kind if each.made else ""
    if not kind or not KINDS[kind].has_ports:
        takers = ", ".join(name for name, found in KINDS.items() if found.has_ports)
        yield f"{each.master} has no ports; expected an interface that is one of {takers}"
    elif own in _NO_PORTS or (kind == "bridge" and own in _NOT_IN_A_BRIDGE) or own == kind == "bond":
        yield f"a {own} cannot be a port of a {kind}"
    elif kind != "vrf" and not each.has_mac:
        yield f"{each.name} has no hwAddr, and a {kind} takes no port without a MAC address"
    elif kind == "bond" and not each.up:
        yield f"{each.name} has state: down, and the kernel sets a port of a bond up"
    elif kind == "bond" and each.addresses:
        yield f"a port of a bond has no addresses; give them to {each.master}"


def _unknown(name: str, known: Mapping[str, Interface], *, complete: bool) -> Iterator[str]:
    # An interface that could not be read may have that name.
    if complete:
        yield f'no interface is named "{name}"; {suggest(name, list(known), listed_by="the manifest")}'


def _mtu(index: int, each: Interface, known: Mapping[str, Interface]) -> Iterator[Finding]:
    below = known.get(each.made.link) if each.made else None
    if below and not below.fits(each.mtu):
        message = f"{each.mtu} is above the MTU of {below.name}, on which it lies: {below.mtu}"
        yield Finding(("interfaces", index, "mtu"), message)


def _above(known: Mapping[str, Interface]) -> dict[str, list[str]]:
    """Return what lies on each interface: its master, and what has it as its link."""
    found: dict[str, list[str]] = {name: [each.master] * (each.master in known) for name, each in known.items()}
    for name, each in known.items():
        if each.made and each.made.link in known:
            found[each.made.link].append(name)
    return found


def _cycle(name: str, above: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the shortest way from an interface to itself over what lies on it; empty if there is none."""
    came_from: dict[str, str] = {}
    waiting = [name]
    while waiting:
        at = waiting.pop(0)
        for each in above[at]:
            if each == name:
                way = [at]
                while way[-1] != name:
                    way.append(came_from[way[-1]])
                return [*reversed(way), name]
            if each not in came_from:
                came_from[each] = at
                waiting.append(each)
    return []
