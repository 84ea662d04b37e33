"""In which other sandbox a device is that a manifest needs: moved into a namespace, or plugged into a machine of ours.

Only a look into every namespace shows where a device has been moved. So that is done only for a device that this host
lacks, and seldom: a watcher may have thousands of namespaces, and many sandboxes that lack a device.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from reconciler.drivers.given import GivenDevices
from reconciler.errors import ReconcilerError
from reconciler.manifest.files import identity
from reconciler.manifest.whereabouts import OWN
from reconciler.model.sandbox import NetnsAddress, VmAddress
from reconciler.netlink.budget import Budget
from reconciler.netlink.channel import ROUTE, LocalKernel
from reconciler.netlink.engine import Engine

# A result is used for so many times as long as it took to find, and at least so many seconds.
_REST, _LEAST = 50, 1.0
_NAMES = "/run/netns"


class _Result:
    """Device → where it is, as found by the last search. `until`: when the next one may begin."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.places: Mapping[str, str] = {}
        self.until = 0.0


_last = _Result()


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
    for descriptor in _listed(f"/proc/{pid}/fdinfo"):
        with suppress(OSError), open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="utf-8", errors="replace") as stream:
            found.update(line.split()[1] for line in stream if line.startswith("iff:\t"))
    return found


def find_moved(devices: Collection[str]) -> dict[str, str]:
    """Return where reconciler has moved these devices, such as `netns web-1 (eth0 there)`; without those not found."""
    if not devices:
        return {}
    with _last.lock:
        begin = time.monotonic()
        if begin >= _last.until:
            _last.places = dict(_search())
            end = time.monotonic()
            _last.until = end + max(_LEAST, _REST * (end - begin))
        return {device: _last.places[device] for device in devices if device in _last.places}


def _search() -> Iterator[tuple[str, str]]:
    for address in _namespaces():
        with suppress(OSError, ReconcilerError):
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
            for device, (link, _) in ours.items():
                yield device, f"{address} ({link.name} there)"


def _namespaces() -> Iterator[NetnsAddress]:
    """Yield an address of each namespace but our own: of those with a name, then of those with only processes."""
    seen = {identity(OWN)}
    addresses = [NetnsAddress(name=name) for name in _listed(_NAMES)]
    addresses += [NetnsAddress(pid=int(name)) for name in _listed("/proc") if name.isdecimal()]
    for address in addresses:
        place = identity(address.file)
        # What is no file, or was not readable, is a path.
        if isinstance(place, tuple) and place not in seen:
            seen.add(place)
            yield address


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
