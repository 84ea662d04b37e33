"""Sandboxes for tests of plans, in few words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reconciler.model.interface import Address, Interface, Origin
from reconciler.model.route import NextHop, Route, canonical_hops
from reconciler.model.sandbox import AttachableDevice, NetnsAddress, Observed, Sandbox, Surroundings
from reconciler.plan import Plan, plan
from reconciler.values import replace

DRIVER = NetnsAddress(name="box")
# What devices are on the host, each with a MAC and an MTU of its own.
HOST_MAC, HOST_MTU = "02:00:00:00:ff:ff", 1400
DEVICES = [*(f"tap{number}" for number in range(10)), "tap-eth0", "tap-eth1", "tap-new"]


def mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def address(text: str) -> Address:
    """An address in the words of iproute2, with its peer; `nodad` turns duplicate address detection off."""
    host, *options = text.removesuffix(" nodad").split(" peer ")
    peer, _, length = options[0].partition("/") if options else ("", "", "")
    prefix = f"{host}/{length}" if peer else host
    return Address(address=prefix, peer=peer or None, dad=not text.endswith(" nodad"))


def nic(name: str = "eth0", *addresses: str, device: str = "", number: int = 1, **fields: Any) -> Interface:
    """A NIC; its device is named after it."""
    return Interface(
        name=name,
        device=device or f"tap-{name}",
        hw_addr=mac(number),
        mtu=fields.pop("mtu", 1500),
        addresses=tuple(map(address, addresses)),
        **fields,
    )


def hop(device: str, gateway: str | None = None, **fields: Any) -> NextHop:
    return NextHop(device=device, gateway=gateway, **fields)


def route(dest: str, *hops: NextHop, **fields: Any) -> Route:
    """A route, with the metric that the kernel gives to IPv6 routes without one."""
    fields.setdefault("metric", 1024 if ":" in dest else 0)
    return Route(dest=dest, nexthops=canonical_hops(hops), **fields)


def wanted(interfaces: Iterable[Interface] | None = None, routes: Iterable[Route] | None = None) -> Sandbox:
    return Sandbox(
        id="box",
        driver=DRIVER,
        interfaces=None if interfaces is None else tuple(interfaces),
        routes=None if routes is None else tuple(routes),
    )


def origin(device: str) -> Origin:
    """What a device is on the host, or was before it was given."""
    return Origin(device=device, hw_addr=HOST_MAC, mtu=HOST_MTU)


def found(
    interfaces: Iterable[Interface] = (), ours: Iterable[Route] = (), *, foreign: Iterable[Route] = (), **around: Any
) -> Observed:
    """An observed sandbox with `lo`, on a recent kernel, whose NICs are TAPs, and a host with devices to give."""
    interfaces = tuple(interfaces)
    surroundings = Surroundings(
        links=frozenset({"lo"}),
        routes=tuple(foreign),
        devices={device: AttachableDevice(name=device, queues=1, origin=origin(device)) for device in DEVICES},
        origins={interface.device: origin(interface.device) for interface in interfaces},
        kinds={interface.device: "tun" for interface in interfaces},
        release="6.18",
    )
    return Observed(sandbox=wanted(interfaces, ours), around=replace(surroundings, **around))


def commands(planned: Plan) -> list[str]:
    """What is printed of a plan, without signs and comments."""
    return [operation.command for operation in planned.operations]


def planned_commands(desired: Sandbox, observed: Observed) -> list[str]:
    return commands(plan(desired, observed))
