"""What checks look at: the facts, and what follows from them for several checks.

The way of a sandbox's packets leads from each of its NICs to a device of the host, and to the bridge that this is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from reconciler.doctor.facts import HOST, Box, Facts, Host, Link, Network, Watcher
from reconciler.model.interface import Interface, given
from reconciler.model.lookup import Lookup
from reconciler.model.sandbox import NetnsAddress, VmAddress
from reconciler.values import NamedTuple

# Kinds of links whose other end is one of the host.
_PAIRED = "veth"
_ABOVE = {"macvlan", "ipvlan", "vlan", "macvtap"}


class Way(NamedTuple):
    """A NIC of a sandbox. `inside` is its link there, `outside` its other end on the host, or the link below it.

    Each is None if it was not found. `bridge`: what `outside` is a port of. `ports`: all ports of that.
    """

    box: Box
    name: str
    device: str
    wish: Interface | None
    inside: Link | None
    outside: Link | None
    bridge: Link | None = None
    ports: tuple[Link, ...] = ()

    @property
    def others(self) -> list[Link]:
        """Return the other ports of its bridge."""
        return [each for each in self.ports if each is not self.outside]

    @property
    def is_pair(self) -> bool:
        """Return whether it is a pair of veth devices."""
        return bool(self.inside and self.inside.kind == _PAIRED and self.outside and self.outside.kind == _PAIRED)

    @property
    def segment(self) -> tuple[str, int]:
        """Return what all NICs on the same link layer have in common: a bridge, or else the device itself."""
        if self.bridge:
            return "bridge", self.bridge.number
        return "device", self.outside.number if self.outside else 0


class Scene:
    """The facts of one run."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._lookups: dict[int, Lookup] = {}

    @property
    def host(self) -> Host:
        """Return the host."""
        return self.facts.host

    @property
    def watcher(self) -> Watcher:
        """Return the watcher."""
        return self.facts.watcher

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Return the sandboxes."""
        return self.facts.boxes

    @property
    def seen(self) -> Iterator[tuple[Box, Network]]:
        """Yield the sandboxes whose inside was read."""
        return ((box, box.network) for box in self.boxes if box.network)

    @property
    def everywhere(self) -> Iterator[tuple[str, Box | None, Network]]:
        """Yield the networks of the host and of the sandboxes: what it is about, and the sandbox; None for the host."""
        yield HOST, None, self.host.network
        yield from ((box.id, box, network) for box, network in self.seen)

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """Return the ways of all sandboxes."""
        return tuple(way for box in self.boxes for way in _of_box(self.facts, box))

    @cached_property
    def behind(self) -> dict[int, Way]:
        """Return the way that each device of the host is the end of, by the number of the device."""
        return {way.outside.number: way for way in self.ways if way.outside}

    def lookup(self, network: Network) -> Lookup:
        """Return the rules and routes of a network."""
        if id(network) not in self._lookups:
            self._lookups[id(network)] = Lookup(network.routes, network.rules)
        return self._lookups[id(network)]

    def ways_of(self, box: Box) -> list[Way]:
        """Return the ways of one sandbox."""
        return self._by_box.get(box.id, [])

    @cached_property
    def _by_box(self) -> dict[str, list[Way]]:
        found: dict[str, list[Way]] = {}
        for way in self.ways:
            found.setdefault(way.box.id, []).append(way)
        return found


def _of_box(facts: Facts, box: Box) -> Iterator[Way]:
    network, seen = box.network, set[str]()
    there = box.observed.sandbox.interfaces or () if box.observed else ()
    present = {each.device: each.name for each in there}
    # Without a manifest, what is there counts.
    for wish in given(there if box.sandbox.interfaces is None else box.sandbox.interfaces):
        name = present.get(wish.device, "")
        seen.add(name)
        if not wish.vhost_user_socket:
            inside = network.by_name.get(name) if network else None
            yield _way(facts, box, name or wish.name, wish.device, wish, inside)
    for link in network.nics if network else ():
        if link.name not in seen and link.kind == _PAIRED and isinstance(box.driver, NetnsAddress):
            yield _way(facts, box, link.name, link.name, None, link)


def _way(facts: Facts, box: Box, name: str, device: str, wish: Interface | None, inside: Link | None) -> Way:
    host = facts.host.network
    outside = None
    if isinstance(box.driver, VmAddress):
        outside = host.by_name.get(device)
    elif inside and inside.kind in _ABOVE | {_PAIRED} and _leads_to_the_host(box, inside):
        outside = host.by_index.get(inside.peer)
        if outside and inside.kind == _PAIRED and (outside.kind != _PAIRED or outside.peer != inside.number):
            outside = None
    bridge = host.by_index.get(outside.master) if outside and outside.master else None
    ports = host.ports[bridge.number] if bridge else ()
    return Way(box, name, device, wish, inside, outside, bridge, ports)


def _leads_to_the_host(box: Box, link: Link) -> bool:
    return link.peer_namespace is not None and link.peer_namespace == box.host_number
