"""A network namespace of this host. Devices move in from the host's namespace (ours) and go back to it.

A moved device carries its origin in its alias: what bears our alias in the namespace is ours, and a device that came back
to the host under another name, as its namespace died, is found again by it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reconciler.errors import BusyError, HostError, SandboxGoneError
from reconciler.model.interface import Address, Interface, Origin
from reconciler.model.sandbox import HostDevice, NetnsAddress, Observed, Sandbox, Surroundings
from reconciler.netlink.channel import SocketChannel
from reconciler.netlink.engine import Engine, local_engine
from reconciler.netlink.interface import Link, LinkAddress
from reconciler.operations import Operation
from reconciler.plan.interface import check_queues

if TYPE_CHECKING:
    from reconciler.netlink.execute import Outcome


class NetnsDriver:
    """One namespace, held open from the first use until `close`."""

    def __init__(self, address: NetnsAddress) -> None:
        """Open the namespace. SandboxGoneError if it does not exist."""
        self._address = address
        try:
            self._file = os.open(address.file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SandboxGoneError(f"{address} does not exist ({address.file})") from None
        except OSError as error:
            raise HostError(f"{address}: {address.file}: {error.strerror}") from error
        try:
            self._channel = SocketChannel(self._file)
        except BaseException:
            os.close(self._file)
            raise
        self._engine = Engine(self._channel)

    def close(self) -> None:
        """Let the namespace go."""
        self._channel.close()
        os.close(self._file)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the namespace itself, so that no lock file can be left behind, and no second name gets around it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another reconciler is changing {self._address}; try again when it has finished") from None
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def observe(self, desired: Sandbox) -> Observed:
        """Read links, addresses and routes of the namespace, and the host's devices that are to come."""
        links = self._engine.links()
        addresses = self._engine.addresses()
        routes = self._engine.routes({link.name: link.index for link in links}, desired.routes or ())
        ours = {origin.device: (link, origin) for link in links if (origin := Origin.from_alias(link.alias))}
        wishes = {wish.device: wish for wish in desired.interfaces or ()}
        found = [_interface(link, origin, addresses, wishes.get(origin.device)) for link, origin in ours.values()]
        own = {link.index: link for link, _ in ours.values()}
        return Observed(
            sandbox=Sandbox(id=desired.id, driver=desired.driver, interfaces=tuple(found), routes=tuple(routes.ours)),
            around=Surroundings(
                links=frozenset(link.name for link in links if link.index not in own),
                routes=tuple(routes.foreign),
                addresses=frozenset(
                    (own[a.index].name, a.address) for a in addresses if a.index in own and _is_given(a)
                ),
                devices=_host_devices([device for device in wishes if device not in ours]),
                tentative=frozenset(
                    (link.name, a.address)
                    for a in addresses
                    if a.tentative and not a.dad_failed and (link := own.get(a.index)) and link.carrier
                ),
                dad_failed=frozenset(
                    (own[a.index].name, a.address) for a in addresses if a.dad_failed and a.index in own
                ),
                origins={device: origin for device, (_, origin) in ours.items()},
                kinds={device: link.kind for device, (link, _) in ours.items()},
                kernel=_kernel(),
            ),
        )

    def execute(self, operations: Sequence[Operation]) -> Iterator[list[Outcome]]:
        """Execute operations; those that move devices are carried out one at a time."""
        # Only an apply pays for the import.
        from reconciler.drivers import netns_execute

        yield from netns_execute.execute(self._engine, self._file, operations)


def _is_given(address: LinkAddress) -> bool:
    """Tell whether the kernel manages an address: its own link-local ones, leases, router advertisements."""
    return address.from_kernel or not address.permanent


def _interface(link: Link, origin: Origin, addresses: list[LinkAddress], wish: Interface | None) -> Interface:
    queues = 0
    if wish is not None:
        # A device has the queues that its maker gave it; only whether they suffice can be said.
        check_queues(wish, link.queues)
        queues = wish.queues
    return Interface(
        name=link.name,
        device=origin.device,
        hw_addr=link.hw_addr,
        mtu=link.mtu,
        up=link.up,
        queues=queues,
        addresses=tuple(
            Address(address=a.address, dad=not a.nodad) for a in addresses if a.index == link.index and not _is_given(a)
        ),
    )


def _host_devices(devices: list[str]) -> dict[str, HostDevice]:
    """Find devices on the host, by name or, if one came home under another name, by its alias."""
    if not devices:
        return {}
    found = {}
    with local_engine() as host:
        for device in devices:
            link = host.link(device)
            if link is not None:
                found[device] = _host_device(device, link)
        if len(found) < len(devices):
            for link in host.links():
                origin = Origin.from_alias(link.alias)
                if origin is not None and origin.device in devices:
                    found.setdefault(origin.device, _host_device(origin.device, link))
    return found


def _host_device(device: str, link: Link) -> HostDevice:
    origin = Origin.from_alias(link.alias)
    if origin is None or origin.device != device:
        origin = Origin(device=device, hw_addr=link.hw_addr, mtu=link.mtu, alias=link.alias)
    return HostDevice(name=link.name, queues=link.queues, origin=origin)


def _kernel() -> tuple[int, int]:
    major, minor, *_ = os.uname().release.split(".")
    return int(major), int("".join(filter(str.isdecimal, minor)) or 0)
