"""The network namespaces of this host, as ip-netns(8) names them, and those of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain

from reconciler.model.sandbox import NetnsAddress

_NAMES = "/run/netns"


def names() -> list[str]:
    """Return the names of namespaces, in order; none if this user may not list them."""
    return _listed(_NAMES)


def addresses() -> Iterator[NetnsAddress]:
    """Yield addresses of all namespaces: by name, then by process. So one namespace may come several times.

    A process may end meanwhile, and a name may be of no namespace.
    """
    named = (NetnsAddress(name=name) for name in names())
    processes = (NetnsAddress(pid=int(name)) for name in _listed("/proc") if name.isdecimal())
    return chain(named, processes)


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
