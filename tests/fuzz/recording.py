"""What a real machine answered to a look, and a machine that answers so again, or not quite so."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reconciler.converge import apply
from reconciler.drivers import attend, inside
from reconciler.drivers.vm import driver as vm
from reconciler.drivers.vm import execute, monitor
from reconciler.drivers.vm.driver import VmDriver
from reconciler.errors import ChannelError
from reconciler.guest import agent, client
from reconciler.guest.agent import Decoder, Frame
from reconciler.guest.connection import Connection
from reconciler.guest.qmp import Monitor, QmpError
from reconciler.model.sandbox import Sandbox, VmAddress
from reconciler.netlink import engine
from reconciler.netlink import execute as netlink
from reconciler.netlink.budget import Budget
from reconciler.preview import preview
from reconciler.values import dataclass, field
from tests.allowed import POLICY

# What an answer of QEMU is made into, and what the bytes of the answer to a request of the agent are made into.
MutateAnswer = Callable[[Any], Any]
MutateFrames = Callable[[list[Frame]], bytes]


@dataclass
class Recording:
    """The answers of QEMU by command, and those of the agent by request, without its id."""

    sandbox: Sandbox
    qmp: dict[str, Any] = field(default_factory=dict)
    agent: dict[tuple[int, bytes], list[Frame]] = field(default_factory=dict)


def packed(frames: list[Frame]) -> bytes:
    """Return frames as they are sent."""
    return b"".join(agent.HEADER.pack(len(each.payload), each.request, each.kind) + each.payload for each in frames)


def record(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Look at a real machine, fully and quickly."""
    made = Recording(sandbox)
    asked: dict[int, tuple[int, bytes]] = {}
    push, receive, order = Connection.push, Connection.receive, Monitor.execute

    def pushed(self: Connection, request: int, kind: int, payload: bytes = b"") -> None:
        asked[request] = (kind, payload)
        made.agent[kind, payload] = []
        push(self, request, kind, payload)

    def received(self: Connection, deadline: float) -> Frame:
        frame = receive(self, deadline)
        if frame.request in asked:
            made.agent[asked[frame.request]].append(frame)
        return frame

    def ordered(self: Monitor, command: str, **arguments: Any) -> Any:
        made.qmp[_key(command, arguments)] = answer = order(self, command, **arguments)
        return answer

    assert isinstance(sandbox.driver, VmAddress)
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "push", pushed)
        patched.setattr(Connection, "receive", received)
        patched.setattr(Monitor, "execute", ordered)
        with attend(sandbox, POLICY) as driver:
            for quick in (False, True):
                assert preview(driver, sandbox, quick=quick).plan.operations == ()
            driver.snapshot(())
    return made


def _key(command: str, arguments: dict[str, Any]) -> str:
    return json.dumps([command, arguments], sort_keys=True)


class ReplayedMonitor(Monitor):
    """QEMU as it was recorded."""

    def __init__(self, recording: Recording, mutate: MutateAnswer, budget: Budget) -> None:
        self._recording, self._mutate, self._budget = recording, mutate, budget

    def close(self) -> None:
        """Close nothing."""

    def execute(self, command: str, **arguments: Any) -> Any:
        with self._budget.step():
            self._budget.deadline(1.0)
            self._budget.spend(100)
        key = _key(command, arguments)
        if key not in self._recording.qmp:
            if not command.startswith("q"):
                return {}
            raise QmpError(command, "DeviceNotFound", "it was not recorded")
        return self._mutate(json.loads(json.dumps(self._recording.qmp[key])))

    def await_event(self, *_: object) -> bool:
        return False


class ReplayedConnection(Connection):
    """The agent as it was recorded, with the frames in bytes."""

    def __init__(self, recording: Recording, mutate: MutateFrames) -> None:
        self.path = "fuzz"
        self._recording, self._mutate = recording, mutate
        self._decoder = Decoder(b"\0" * 16, 0)
        self._frames: deque[Frame] = deque()
        self._size = 0
        self._unsent = bytearray()
        self._requests = Decoder(agent.MAGIC, agent.NONCE_SIZE)
        self._left = b""

    def close(self) -> None:
        """Close nothing."""

    def step(self, deadline: float, source: int | None = None) -> bool:
        del deadline, source
        sent, self._unsent = bytes(self._unsent), bytearray()
        for each in self._requests.feed(sent):
            if each.kind == agent.GREETING:
                hello = Frame(0, agent.HELLO, agent.HELLO_HEAD.pack(agent.VERSION) + b"6.1.0")
                self._left += agent.MAGIC + each.payload + packed([hello])
                continue
            found = self._recording.agent.get((each.kind, each.payload))
            if found is None:
                # A change, or a request that follows from a lie: it is acknowledged by what was recorded last.
                found = list(self._recording.agent.values())[-1]
            self._left += self._mutate([frame._replace(request=each.request) for frame in found])
        if not self._left:
            raise ChannelError("the guest did not answer in time (fuzz)")
        data, self._left = self._left[:65536], self._left[65536:]
        self._decode(data)
        return False


@contextmanager
def replayed(recording: Recording, answer: MutateAnswer, frames: MutateFrames) -> Iterator[VmDriver]:
    """Yield a driver of the recorded machine. What it waits for is over at once."""

    def open_monitor(*_: object, budget: Budget, target: str) -> Monitor:
        del target
        return ReplayedMonitor(recording, answer, budget)

    assert isinstance(recording.sandbox.driver, VmAddress)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(vm, "Monitor", open_monitor)
        patched.setattr(client, "Connection", lambda *_: ReplayedConnection(recording, frames))
        for module, names in _WAITS.items():
            for name in names:
                patched.setattr(module, name, 0.0)
        driver = VmDriver(recording.sandbox.driver, POLICY, borrow=False, report=print)
        try:
            yield driver
        finally:
            driver.close()


_WAITS: dict[Any, tuple[str, ...]] = {
    inside: ("_SETTLE_TIMEOUT",),
    vm: ("_SETTLE_TIMEOUT",),
    engine: ("CONSISTENT_DUMP_TIMEOUT",),
    execute: ("PLUG_TIMEOUT",),
    monitor: ("UNPLUG_TIMEOUT",),
    netlink: ("DAD_TIMEOUT",),
}


def look(driver: VmDriver, sandbox: Sandbox, number: int) -> None:
    """Look, quickly or fully, or apply, in turn."""
    if number % 3 == 2:
        apply(driver, sandbox, all_or_nothing=bool(number % 2))
    else:
        preview(driver, sandbox, quick=number % 3 == 1)
