"""How Python runs in a process that watches."""

from __future__ import annotations

import gc
import sys
import threading

# Seconds after which a thread that computes lets another one go on. Each message to a kernel is such a switch, and with
# the default of 5 ms, one sandbox that is read for long makes the repairs of all others slow.
_SWITCH = 0.0001
# Bytes of the stack of a thread.
_STACK = 512 << 10


def tune() -> None:
    """Let this process run for long, with many threads."""
    # Other commands end so soon that garbage collection is off in them; this one keeps running.
    gc.enable()
    # A collection of everything stops all threads, and one sandbox with much to read would cause many of them.
    gc.freeze()
    gc.set_threshold(20_000, 50, 1000)
    sys.setswitchinterval(_SWITCH)
    # There may be thousands of threads, which mostly wait.
    threading.stack_size(_STACK)
