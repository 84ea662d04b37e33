"""Our command line, killed by SIGKILL at a moment of its own.

    killed.py before|after OPERATION WORD…

Before it sends, or after the kernel has carried out, the first operation of a kind.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from reconciler.cli.main import main
from reconciler.guest.kernel import GuestKernel
from reconciler.netlink import ipvs_execute
from reconciler.netlink.execute import Request


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, kind: str) -> None:
    here = vars(ipvs_execute)
    send, set_sysctl = here["send"], GuestKernel.set_sysctl

    def sent(channel: object, batch: Sequence[Request], is_gone: object) -> object:
        meant = any(type(request.operation).__name__ == kind for request in batch)
        if meant and moment == "before":
            die()
        outcomes = send(channel, batch, is_gone)
        if meant:
            die()
        return outcomes

    def was_set(self: GuestKernel, name: str, value: str) -> None:
        set_sysctl(self, name, value)
        if kind == "StartExpiring" and name.endswith(".expire_nodest_conn"):
            die()

    here["send"] = sent
    GuestKernel.set_sysctl = was_set  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(*sys.argv[1:3])
    sys.exit(main(sys.argv[3:]))
