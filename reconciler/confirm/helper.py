"""The helper of a change that has to be confirmed: two processes, each of which undoes it at the deadline.

Standard input is a pipe from whoever makes the change: its end says that the change was made, or that its maker is
dead. Both processes write a byte to standard output when they are ready. They end when the change is over.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time

from reconciler import pending
from reconciler.confirm.revert import finish
from reconciler.errors import ReconcilerError
from reconciler.history.writer import Writer

# Seconds between two looks at the file, before the deadline and after it, and to the next try after one that failed.
_POLL, _SOON, _RETRY = 0.2, 0.1, 0.5
READY = b"\n"
# What an undo in a namespace imports when it is used.
_NEEDED = (
    "reconciler.drivers.netns",
    "reconciler.drivers.netns_execute",
    "reconciler.netlink.execute",
    "reconciler.netlink.facts",
    "reconciler.history.author",
    "pyroute2.netlink.rtnl.ifinfmsg",
    "pyroute2.netlink.rtnl.ifaddrmsg",
)


def main(sandbox: str) -> None:
    """Wait, and undo the change of a sandbox unless it is confirmed."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # One of them may be killed, and neither is a child of whoever makes the change.
    for _ in range(2):
        if os.fork() == 0:
            break
    else:
        return
    os.write(1, READY)
    os.close(1)
    # What takes longest: at the deadline, all of it is there.
    for name in _NEEDED:
        importlib.import_module(name)
    while os.read(0, 1):
        pass
    lines = Writer(lambda _: None)
    while True:
        try:
            found = pending.read(sandbox)
            if found is None or (found.is_due and finish(sandbox, lines)):
                return
            if found.is_due:
                # The other process is at it, and may be killed; or this one has failed.
                wait = _RETRY if found.problem else _SOON
            else:
                wait = min(_POLL, found.left)
        except (ReconcilerError, OSError):
            # The next try may be luckier; there is nobody to tell.
            wait = _RETRY
        time.sleep(max(0.0, wait))


if __name__ == "__main__":
    main(sys.argv[1])
