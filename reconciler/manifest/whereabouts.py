"""Where sandboxes are on this host: which addresses lead to the same one, and which process a pid means.

A namespace is its device and inode. It can have any number of names: a link, a bind mount, each process in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable
from contextlib import suppress

from reconciler.manifest.files import identity, is_stream
from reconciler.model.sandbox import (
    NO_PROCESS,
    DriverAddress,
    KataAddress,
    LibvirtAddress,
    NetnsAddress,
    Sandbox,
    VmAddress,
)
from reconciler.values import replace

# Our own namespace.
OWN = "/proc/thread-self/ns/net"
# Seconds by which the time of a file may be behind: the kernel takes it from the last tick of its clock.
_BEHIND = 0.05
# Seconds to which file systems round that store no fractions: FAT takes even ones only.
_COARSE = 2.0


def place_of(address: DriverAddress) -> Hashable:
    """Return what all addresses of one sandbox have in common, as far as this host shows it now."""
    match address:
        case KataAddress(id=name):
            return "kata", name
        case VmAddress():
            return address.place(identity)
        case LibvirtAddress(domain=domain, uuid=uuid):
            # All URIs of a host's libvirt lead to the same domains. Which UUID a name has, only libvirt knows.
            return "libvirt", uuid or domain
        case _:
            return identity(address.file)


def identify(file: str) -> Hashable:
    """Return what all paths of a namespace or a socket have in common; of our own namespace, the path.

    That one is refused when it is opened. Manifests with pids of another host would all seem to mean it.
    """
    found = identity(file)
    return file if found == identity(OWN) else found


def with_process(sandbox: Sandbox, file: str) -> Sandbox:
    """Return a sandbox whose address names one process if it is a pid: that which had it when `file` was written."""
    address = sandbox.driver
    if not isinstance(address, NetnsAddress) or address.pid is None:
        return sandbox
    started = NO_PROCESS
    with suppress(OSError):
        found = start_of(f"/proc/{address.pid}")
        if is_stream(file) or _wall_clock(found) <= _written(file):
            started = found
    return replace(sandbox, driver=replace(address, started=started))


def names_process(sandbox: Sandbox) -> bool:
    """Return whether the address of a sandbox is a pid."""
    return isinstance(sandbox.driver, NetnsAddress) and sandbox.driver.pid is not None


def start_of(folder: str, dir_fd: int | None = None) -> int:
    """Return when the process of a folder of /proc began, in ticks since the boot of the host; OSError if it ended."""
    stat = os.open(f"{folder}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    with open(stat, "rb") as stream:
        # proc(5): field 22. The second field is a name in parentheses, which may contain anything.
        return int(stream.read().rpartition(b")")[2].split()[19])


def _wall_clock(started: int) -> float:
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + started / os.sysconf("SC_CLK_TCK")


def _written(file: str) -> float:
    modified = os.stat(file).st_mtime_ns
    return modified / 1e9 + (_BEHIND if modified % 1_000_000_000 else _COARSE)
