"""Gives the tests of a process a host of their own, as far as files say what a host has: mounts, for root.

A host has one watcher, what waits to be confirmed there is finished by the next command, and both are known by files.
So tests of several processes would disturb each other, and whoever uses reconciler on this host.
"""

from __future__ import annotations

import ctypes
import os

from reconciler import rundir
from reconciler.history import folder

# linux/sched.h and linux/mount.h.
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
# Where `ip netns` has the names of namespaces: nothing finds those of other processes.
_NAMESPACES = "/run/netns"
_libc = ctypes.CDLL(None, use_errno=True)


def isolate() -> None:
    """Cover these folders by empty ones, for this thread and for all that it starts. OSError if that fails."""
    _check(_libc.unshare(_CLONE_NEWNS))
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    for path, mode in ((rundir.ROOT, "0700"), (folder.STATE, "0700"), (_NAMESPACES, "0755")):
        os.makedirs(path, int(mode, 8), exist_ok=True)
        _mount("tmpfs", path, "tmpfs", 0, f"mode={mode}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    texts = (each.encode() if each else None for each in (source, target, kind))
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), options.encode() if options else None))


def _check(status: int) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, f"tests need mounts of their own: {os.strerror(number)}")
