"""In which other sandbox a device is that a manifest needs: moved into a namespace, or plugged into a machine of ours.

The record of given devices says which namespaces to look into, for a device that this host lacks.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress

from reconciler.drivers import namespaces
from reconciler.drivers.given import GivenDevices, Namespace, find_namespaces
from reconciler.errors import ReconcilerError
from reconciler.manifest.files import identity
from reconciler.model.sandbox import NetnsAddress, VmAddress
from reconciler.netlink.budget import Budget
from reconciler.netlink.channel import ROUTE, LocalKernel
from reconciler.netlink.engine import Engine


def find_plugged(devices: Collection[str]) -> dict[str, str]:
    """Return which machines of ours use these devices of the host, such as `vm web-1`; without those not found."""
    taps = {device for device in devices if os.path.exists(f"/sys/class/net/{device}/tun_flags")}
    if not taps:
        return {}
    # Most devices are no TAPs.
    from reconciler.guest import launch

    running = ((state.name, state.pid) for state in launch.states() if state.pid)
    return {device: str(VmAddress(name=name)) for name, pid in running for device in taps & _taps_of(pid)}


def _taps_of(pid: int) -> set[str]:
    """Return the TAPs that a process has open: the kernel names them in the information about descriptors."""
    found: set[str] = set()
    for descriptor in _descriptors(pid):
        with suppress(OSError), open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="utf-8", errors="replace") as stream:
            names = (line.removeprefix("iff:\t").strip() for line in stream if line.startswith("iff:\t"))
            # There is no name once the TAP was deleted, and before one is attached.
            found.update(filter(None, names))
    return found


def _descriptors(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fdinfo")
    except OSError:
        return []


def find_moved(devices: Collection[str]) -> dict[str, str]:
    """Return where reconciler has moved these devices, such as `netns web-1 (eth0 there)`; without those not found."""
    wanted = find_namespaces(devices) if devices else set()
    if not wanted:
        return {}
    found: dict[str, str] = {}
    for address in _addresses(wanted):
        with suppress(OSError, ReconcilerError):
            ours = _ours(address)
            found |= {device: f"{address} ({ours[device]} there)" for device in ours.keys() & devices}
    return found


def _ours(address: NetnsAddress) -> dict[str, str]:
    """Return the names in a namespace of the devices that were given to it, by their names on the host."""
    file = os.open(address.file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        kernel = LocalKernel(file, Budget())
        channel = kernel.open(ROUTE)
        try:
            # The alias of a link proves nothing: whoever has rights in the namespace could have written it.
            ours = GivenDevices(file, kernel).recognise(Engine(channel).links()).ours
        finally:
            channel.close()
    finally:
        os.close(file)
    return {device: link.name for device, (link, _) in ours.items()}


def _addresses(wanted: Collection[Namespace]) -> Iterator[NetnsAddress]:
    """Yield an address of each of these namespaces that is found: a name if it has one, else one of its processes."""
    sought = set(wanted)
    for address in namespaces.addresses():
        if not sought:
            return
        place = identity(address.file)
        if isinstance(place, tuple) and place in sought:
            sought.discard(place)
            yield address
