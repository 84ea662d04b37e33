"""Our command line, killed by SIGKILL at a moment of its own.

    killed.py before|after OPERATION WORD…

Before it sends, or after the kernel has carried out, the first operation of a kind.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence

from reconciler.cli.main import main
from reconciler.guest.kernel import GuestKernel
from reconciler.netlink import ipvs_execute
from reconciler.netlink.execute import Request
from reconciler.operations.outcome import Outcome


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, kind: str) -> None:
    here = vars(ipvs_execute)
    send_all, set_sysctl = here["send_all"], GuestKernel.set_sysctl

    def is_meant(each: Iterable[Request | Outcome]) -> bool:
        return any(type(one.operation).__name__ == kind for one in each)

    def all_sent(channel: object, batches: Iterable[Sequence[Request]], is_gone: object) -> Iterator[Sequence[Outcome]]:
        def looked_at() -> Iterator[Sequence[Request]]:
            for batch in batches:
                if is_meant(batch) and moment == "before":
                    die()
                yield batch

        for outcomes in send_all(channel, looked_at(), is_gone):
            if is_meant(outcomes):
                die()
            yield outcomes

    def was_set(self: GuestKernel, name: str, value: str) -> None:
        set_sysctl(self, name, value)
        if kind == "StartExpiring" and name.endswith(".expire_nodest_conn"):
            die()

    here["send_all"] = all_sent
    GuestKernel.set_sysctl = was_set  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(*sys.argv[1:3])
    sys.exit(main(sys.argv[3:]))
