"""Devices that are on the host, recognised by what no name, MAC address or alias can imitate: their number."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from contextlib import closing

from reconciler.drivers.given import Given, find_given, find_namespaces
from reconciler.drivers.lock import of_namespace
from reconciler.model.interface import Origin
from reconciler.model.sandbox import AttachableDevice
from reconciler.netlink import turn
from reconciler.netlink.channel import LocalKernel
from reconciler.netlink.engine import Engine, local_engine
from reconciler.netlink.interface import Link
from reconciler.rundir import NamedLock

_TEMPORARY = "rcl"
_TEMPORARY_NAME = re.compile(f"{_TEMPORARY}[0-9a-f]{{8}}")
# Seconds for another run to bring a device home; it takes 0.02, and on a busy host some seconds.
_RETURN_TIMEOUT, _POLL = 30.0, 0.02


def attachable(devices: Collection[str]) -> dict[str, AttachableDevice]:
    """Return devices of the host: by name, or by record if one came home under another name.

    The kernel does that with a physical device whose namespace died, and so does a run that was killed.
    """
    if not devices:
        return {}
    deadline = time.monotonic() + _RETURN_TIMEOUT
    while True:
        found = _attachable(devices)
        on_their_way = [device for device, each in found.items() if is_temporary(each.name)]
        if not on_their_way or time.monotonic() > deadline:
            return found
        if not _are_awaited(on_their_way):
            # What brought it home may have ended since it was looked at.
            return _attachable(devices)
        turn.sleep(_POLL)


def names() -> frozenset[str]:
    """Return the names of all devices of the host."""
    with local_engine() as host:
        return frozenset(link.name for link in host.links())


def _are_awaited(devices: Collection[str]) -> bool:
    """Return whether another run is just bringing a device home. If it was killed, this one may take it as it is."""
    for each in find_namespaces(devices) if devices else ():
        with closing(NamedLock(of_namespace(each.device, each.inode))) as lock:
            if lock.is_taken():
                return True
    return False


def _attachable(devices: Collection[str]) -> dict[str, AttachableDevice]:
    with local_engine() as host:
        links = {device: link for device in devices if (link := host.link(device))}
        # An alias of ours is a hint that a record has more to say of the device. A physical one may have another alias.
        doubtful = {device for device in devices if device not in links or _may_be_recorded(links[device])}
        came = _came_home(host, doubtful)
    found = {device: _device(link, _present(link)) for device, link in links.items()}
    return found | {device: _device(link, origin) for device, (link, origin) in came.items()}


def _came_home(host: Engine, devices: Collection[str]) -> dict[str, tuple[Link, Origin]]:
    given = find_given(devices) if devices else []
    found = ((each, find_on_host(host, each)) for each in given)
    return {each.origin.device: (link, each.origin) for each, link in found if link}


def _may_be_recorded(link: Link) -> bool:
    return link.physical or Origin.from_alias(link.alias) is not None


def temporary_name() -> str:
    """Return the name of a device on its way home, which no other device has."""
    return f"{_TEMPORARY}{os.urandom(4).hex()}"


def is_temporary(name: str) -> bool:
    """Return whether a device of the host is on its way home."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def find_on_host(host: Engine, given: Given) -> Link | None:
    """Return the link of the host that is a given device, under whatever name."""
    links = {link.index: link for link in host.links() if link.kind == given.kind}
    numbers = LocalKernel().device_numbers({index: link.name for index, link in links.items()})
    return next((links[index] for index, number in numbers.items() if number == given.number), None)


def number_on_host(link: Link) -> int | None:
    """Return the number of a link of the host; None if it does not exist any more."""
    return LocalKernel().device_numbers({link.index: link.name}).get(link.index)


def _present(link: Link) -> Origin:
    return link.to_origin(link.name, link.alias, up=link.up)


def _device(link: Link, origin: Origin) -> AttachableDevice:
    return AttachableDevice(
        name=link.name,
        queues=link.queues,
        origin=origin,
        kind=link.kind,
        mtus=link.mtus,
        physical=link.physical,
    )
