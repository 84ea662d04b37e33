"""A network namespace of this host. Devices move in from the host's namespace (ours) and go back to it.

A moved device carries its origin in its alias: what bears our alias in the namespace is ours, and a device that came back
to the host under another name, as its namespace died, is found again by it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.drivers.inside import Given, Inside, release
from reconciler.drivers.lock import locked
from reconciler.errors import HostError, SandboxGoneError
from reconciler.model.interface import Interface, Origin
from reconciler.model.sandbox import HostDevice, NetnsAddress, Observed, Sandbox
from reconciler.netlink.channel import LocalKernel
from reconciler.netlink.engine import local_engine
from reconciler.netlink.interface import Link
from reconciler.operations.segment import Segment
from reconciler.plan.namespace import check_queues

if TYPE_CHECKING:
    from reconciler.operations.outcome import Outcome


class NetnsDriver:
    """One namespace, held open from the first use until `close`."""

    def __init__(self, address: NetnsAddress) -> None:
        """Open the namespace. SandboxGoneError if it does not exist."""
        self._address = address
        try:
            # A pipe would keep one waiting.
            self._file = os.open(address.file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise SandboxGoneError(f"{address} does not exist ({address.file})") from None
        except OSError as error:
            raise HostError(f"{address}: {address.file}: {error.strerror}") from error
        try:
            self._inside = Inside(LocalKernel(self._file))
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Let the namespace go."""
        self._inside.close()
        os.close(self._file)

    def lock(self) -> AbstractContextManager[None]:
        """Lock the namespace itself, so that no lock file can be left behind, and no second name gets around it."""
        return locked(self._file, self._address)

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """Read what is in the namespace, and the host's devices that are to come."""
        links = self._inside.engine.links()
        ours = {origin.device: (link, origin) for link in links if (origin := Origin.from_alias(link.alias))}
        wishes = {wish.device: wish for wish in desired.interfaces or ()}
        given = {device: _given(link, wishes.get(device)) for device, (link, _) in ours.items()}
        observed = self._inside.observe(desired, links, given, quick=quick)
        around = replace(
            observed.around,
            devices=_host_devices([device for device in wishes if device not in ours]),
            origins={device: origin for device, (_, origin) in ours.items()},
            kernel=release(os.uname().release),
        )
        return Observed(sandbox=observed.sandbox, around=around)

    def ipvs_listing(self) -> str:
        """Give the kernel's own listing of its IPVS table."""
        return self._inside.ipvs_listing()

    def execute(self, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        """Execute segments; devices move one at a time."""
        # Only an apply pays for the import.
        from reconciler.drivers import netns_execute

        yield from netns_execute.execute(self._inside, self._file, segments)


def _given(link: Link, wish: Interface | None) -> Given:
    if wish is None:
        return Given(link)
    # A device has the queues that its maker gave it; only whether they suffice can be said.
    check_queues(wish, link.queues)
    return Given(link, wish.queues)


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
