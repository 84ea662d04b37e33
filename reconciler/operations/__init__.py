"""The operations as values: what is done to what, and the command an engineer would type for it.

Commands are for a shell in the sandbox's namespace, except where a device comes from the host; `netns $$` is the
namespace of the shell that was there before. Names are quoted: those that are observed may be anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from shlex import quote
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from reconciler.model.address import DEFAULT_IPV4, DEFAULT_IPV6
from reconciler.model.interface import Address, Origin
from reconciler.model.route import TABLE_MAIN, NextHop, Route

if TYPE_CHECKING:
    from reconciler.operations.ipvs import IpvsOperation
    from reconciler.operations.kata import KataOperation
    from reconciler.operations.machine import MachineOperation

# Our own rtm_protocol: what carries it is ours (linux/rtnetlink.h leaves 192 to 255 to others than the kernel).
PROTOCOL = 200

Sign = Literal["+", "~", "-"]


class Base:
    """What holds of an operation unless it says otherwise."""

    __slots__ = ()

    # Several commands: they need a shell of their own.
    compound: ClassVar[bool] = False
    # It is about IPVS.
    ipvs: ClassVar[bool] = False
    # It is about NICs of a virtual machine, and nothing that is done within.
    machine: ClassVar[bool] = False
    # It frees what is not served any more.
    ends: ClassVar[bool] = False

    @property
    def only_marks(self) -> bool:
        """Tell whether it changes nothing but our mark."""
        return False

    @property
    def comment(self) -> str:
        """Say what is replaced, or what is not certain; empty where the command says it all."""
        return ""

    @property
    def may_fail(self) -> bool:
        """Tell whether the command may fail because there is nothing (left) to do."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachInterface(Base):
    """Move a device of the host into the sandbox, rename it and mark it, in one message."""

    sign: ClassVar[Sign] = "+"
    host_name: str
    namespace: str
    name: str
    origin: Origin

    @property
    def command(self) -> str:
        """The command, typed on the host."""
        moved = f"ip link set dev {quote(self.host_name)} netns {quote(self.namespace)} name {quote(self.name)}"
        return f"{moved} alias {quote(self.origin.to_alias())}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachInterface(Base):
    """Give a device back to the host as it was: its name, MAC, MTU and alias."""

    sign: ClassVar[Sign] = "-"
    name: str
    origin: Origin

    @property
    def command(self) -> str:
        """The command."""
        back = self.origin
        moved = f"ip link set dev {quote(self.name)} netns $$ name {quote(back.device)}"
        return f"{moved} address {back.hw_addr} mtu {back.mtu} alias {quote(back.alias)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameInterface(Base):
    """Give a NIC another name in the sandbox."""

    sign: ClassVar[Sign] = "~"
    name: str
    new_name: str

    @property
    def command(self) -> str:
        """The command."""
        return f"ip link set dev {quote(self.name)} name {quote(self.new_name)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLink(Base):
    """Change what is given of a NIC, in one message. `was` says the old values, for people."""

    name: str
    hw_addr: str | None = None
    mtu: int | None = None
    up: bool | None = None
    was: str = ""
    sign: Sign = "~"

    @property
    def command(self) -> str:
        """The command."""
        words = ["ip link set dev", quote(self.name)]
        if self.hw_addr is not None:
            words += ["address", self.hw_addr]
        if self.mtu is not None:
            words += ["mtu", str(self.mtu)]
        if self.up is not None:
            words.append("up" if self.up else "down")
        return " ".join(words)

    @property
    def comment(self) -> str:
        """Say what is replaced."""
        return f"was {self.was}" if self.was else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAddress(Base):
    """Add an address to a NIC."""

    sign: ClassVar[Sign] = "+"
    device: str
    address: Address

    @property
    def command(self) -> str:
        """The command."""
        return _address_command("add", self.device, self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceAddress(Base):
    """Change how duplicates of an address are detected, or put it back where the kernel may have dropped it."""

    sign: ClassVar[Sign] = "~"
    device: str
    address: Address

    @property
    def command(self) -> str:
        """The command."""
        return _address_command("replace", self.device, self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteAddress(Base):
    """Remove an address from a NIC."""

    sign: ClassVar[Sign] = "-"
    device: str
    address: Address

    @property
    def command(self) -> str:
        """The command."""
        return f"ip address del {self.address.address} dev {quote(self.device)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitAddress(Base):
    """Wait until duplicate address detection of an IPv6 address ends: no route can name it as its source before."""

    sign: ClassVar[Sign] = "+"
    compound: ClassVar[bool] = True
    device: str
    address: Address

    @property
    def command(self) -> str:
        """The command."""
        listing = f"ip -6 address show dev {quote(self.device)} tentative"
        return f"while {listing} | grep -qF ' {self.address.address} '; do sleep 0.1; done"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRoute(Base):
    """Add a route. An existing one of the same destination, table and metric is an error."""

    sign: ClassVar[Sign] = "+"
    route: Route

    @property
    def command(self) -> str:
        """The command."""
        return _route_command("add", self.route)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceRoute(Base):
    """Put a route in the place of another of the same key, without a moment in which there is none."""

    sign: ClassVar[Sign] = "~"
    route: Route
    before: Route

    @property
    def command(self) -> str:
        """The command."""
        return _route_command("replace", self.route)

    @property
    def comment(self) -> str:
        """Say what is replaced."""
        return f"was {route_words(self.before)}" if self.before != self.route else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRoute(Base):
    """Delete one route, named so that no other one can go in its place.

    Several next hops are left out: the kernel would compare them in their order, and the rest names the route.
    `doubtful`: what came before may have taken it along.
    """

    sign: ClassVar[Sign] = "-"
    route: Route
    doubtful: bool = False

    @property
    def command(self) -> str:
        """The command."""
        route = self.route if len(self.route.nexthops) == 1 else replace(self.route, nexthops=())
        return _route_command("del", route)

    @property
    def comment(self) -> str:
        """Say that it is not certain."""
        return "if it is there still" if self.doubtful else ""

    @property
    def may_fail(self) -> bool:
        """Tell whether it may be gone already."""
        return self.doubtful


LinkOperation = AttachInterface | DetachInterface | RenameInterface | SetLink
AddressOperation = AddAddress | ReplaceAddress | DeleteAddress | AwaitAddress
RouteOperation = AddRoute | ReplaceRoute | DeleteRoute
NetworkOperation = LinkOperation | AddressOperation | RouteOperation
# As text, since the operations of IPVS and of machines are loaded only where there are any.
Operation: TypeAlias = "NetworkOperation | IpvsOperation | MachineOperation | KataOperation"


def _address_command(verb: str, device: str, address: Address) -> str:
    nodad = "" if address.dad else " nodad"
    return f"ip address {verb} {address.address} dev {quote(device)}{nodad}"


def _hop_words(hop: NextHop) -> str:
    via = f"via {hop.gateway} " if hop.gateway else ""
    return f"{via}dev {quote(hop.device)}"


def route_words(route: Route) -> str:
    """Write a route as iproute2 does, without `ip route` and protocol."""
    words = [] if route.type == "unicast" else [route.type]
    words.append("default" if route.dest in (DEFAULT_IPV4, DEFAULT_IPV6) else route.dest)
    if len(route.nexthops) == 1:
        words.append(_hop_words(route.nexthops[0]))
    if route.table != TABLE_MAIN:
        words.append(f"table {route.table}")
    if route.metric:
        words.append(f"metric {route.metric}")
    if route.source:
        words.append(f"src {route.source}")
    if route.mtu:
        words.append(f"mtu {route.mtu}")
    if route.advmss:
        words.append(f"advmss {route.advmss}")
    if len(route.nexthops) == 1:
        words += ["onlink"] * route.nexthops[0].on_link
    else:
        for hop in route.nexthops:
            words.append(f"nexthop {_hop_words(hop)} weight {hop.weight}{' onlink' if hop.on_link else ''}")
    return " ".join(words)


def _route_command(verb: str, route: Route) -> str:
    ip = "ip -6" if route.is_ipv6 else "ip"
    first, separator, hops = route_words(route).partition(" nexthop ")
    return f"{ip} route {verb} {first} proto {PROTOCOL}{separator}{hops}"
