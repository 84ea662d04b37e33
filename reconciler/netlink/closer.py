"""Closes descriptors for which the kernel takes long, without anybody waiting for it.

When a file system that is mounted nowhere is closed, the kernel waits until no processor can still be using it
(synchronize_rcu_expedited in namespace_unlock, fs/namespace.c): less than a millisecond on an idle host, 5 to 20 on a
busy one.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import SimpleQueue

_descriptors: SimpleQueue[int] = SimpleQueue()
_start = threading.Lock()


def close_later(descriptor: int) -> None:
    """Close a descriptor in a thread of its own. If the process ends before, the kernel closes it."""
    _descriptors.put(descriptor)
    # It is released by no one: there is one thread.
    if _start.acquire(blocking=False):
        threading.Thread(target=_close, name="closer", daemon=True).start()


def _close() -> None:
    while True:
        # Whatever close(2) fails with, the descriptor is gone.
        with suppress(OSError):
            os.close(_descriptors.get())
