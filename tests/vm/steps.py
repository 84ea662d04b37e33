"""Each step of an apply, to do something to it there: what the executed plan sends to QEMU and to the guest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from reconciler.drivers.inside import Inside
from reconciler.drivers.vm import execute as vm_execute
from reconciler.drivers.vm.plugboard import Plugboard
from reconciler.guest.client import AgentClient
from reconciler.guest.qmp import Monitor
from reconciler.netlink.budget import Budget
from reconciler.operations.outcome import Outcome
from reconciler.operations.segment import Segment

Step = Callable[[str], None]


@contextmanager
def watched(step: Step) -> Iterator[None]:
    """Call `step` before and after each message of an execution is sent, with what is sent.

    It ends with the first execution: what is looked at, or undone, afterwards is not watched.
    """
    executing: list[bool] = []
    with pytest.MonkeyPatch.context() as patched:

        def execute(
            inside: Inside, client: AgentClient, board: Plugboard, budget: Budget, segments: Sequence[Segment]
        ) -> Iterator[list[Outcome]]:
            executing.append(len(executing) == 0)
            try:
                yield from unwatched(inside, client, board, budget, segments)
            finally:
                executing[-1] = False

        def order(self: Monitor, command: str, **arguments: Any) -> Any:
            if not any(executing):
                return unwatched_order(self, command, **arguments)
            step(f"before {command}")
            answer = unwatched_order(self, command, **arguments)
            step(f"after {command}")
            return answer

        def receive(self: Monitor, deadline: float, what: str) -> dict[str, Any]:
            if any(executing):
                step(f"during {what}")
            return unwatched_receive(self, deadline, what)

        def request(self: AgentClient, kind: int, payload: bytes) -> list[bytes]:
            if any(executing):
                step("before a request to the guest")
            return unwatched_request(self, kind, payload)

        def requests(self: AgentClient, kind: int, payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
            def stepping() -> Iterator[bytes]:
                for payload in payloads:
                    if any(executing):
                        step("before a batch for the guest")
                    yield payload

            return unwatched_requests(self, kind, stepping())

        unwatched, unwatched_order = vm_execute.execute, Monitor.execute
        unwatched_receive = Monitor._receive
        unwatched_request, unwatched_requests = AgentClient.request, AgentClient.requests
        patched.setattr(vm_execute, "execute", execute)
        patched.setattr(Monitor, "execute", order)
        patched.setattr(Monitor, "_receive", receive)
        patched.setattr(AgentClient, "request", request)
        patched.setattr(AgentClient, "requests", requests)
        yield
