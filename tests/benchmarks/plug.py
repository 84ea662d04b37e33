"""Hot-plug: the time from the start of an apply to a NIC that is up in the guest with its address, and its parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler import converge
from reconciler.drivers import connect
from reconciler.guest import launch
from reconciler.guest.client import AgentClient
from reconciler.guest.qmp import Monitor
from reconciler.manifest.load import load
from reconciler.model.policy import Policy
from reconciler.safety import Allowance
from tests.benchmarks.measure import Figure
from tests.conftest import Kernel

ROUNDS = 10
MANIFEST = """\
apiVersion: reconciler/v1
sandbox: bench
driver: {{vm: {{name: {name}}}}}
interfaces:{interfaces}
"""
NIC = """
  - {{name: eth-test, device: {device}, hwAddr: 02:42:20:6f:a3:69, mtu: 1500, addresses: [172.16.0.3/16]}}
"""


class Clock:
    """Adds up the time spent in calls of others."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("QEMU", "guest"), 0.0)

    def around(self, who: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Give a call that is timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds[who] += time.perf_counter() - begin

        return timed


@contextmanager
def timed() -> Iterator[Clock]:
    """Time what QEMU and the guest take: the monitor's answers, the agent's, and the wait for a NIC to appear."""
    clock = Clock()
    places: tuple[tuple[Any, str, str], ...] = (
        (Monitor, "execute", "QEMU"),
        (AgentClient, "_collect", "guest"),
        (AgentClient, "_greet", "guest"),
        (time, "sleep", "guest"),
    )
    calls = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    try:
        for owner, name, who in places:
            setattr(owner, name, clock.around(who, getattr(owner, name)))
        yield clock
    finally:
        for owner, name, call in calls:
            setattr(owner, name, call)


def run(kernel: Kernel, folder: Path) -> list[Figure]:
    name = f"plug-{os.getpid()}"
    device = kernel.tap()
    plugged, empty = folder / "plugged.yaml", folder / "empty.yaml"
    plugged.write_text(MANIFEST.format(name=name, interfaces=NIC.format(device=device)))
    empty.write_text(MANIFEST.format(name=name, interfaces=" []"))
    launch.start(name)
    try:
        whole, clock = measure(plugged, empty)
    finally:
        launch.stop(name)
    ours = whole - sum(clock.seconds.values())
    parts = ", ".join(f"{who} {1000 * seconds / ROUNDS:.0f} ms" for who, seconds in clock.seconds.items())
    return [
        Figure(
            name="hot-plug of a NIC, ours beside the whole",
            detail=(
                f"{1000 * whole / ROUNDS:.0f} ms from apply to a verified NIC: {parts}, ours "
                f"{1000 * ours / ROUNDS:.0f} ms"
            ),
            ratio=ours / whole,
            bar=0.15,
            aim=0.13,
        )
    ]


def measure(plugged: Path, empty: Path) -> tuple[float, Clock]:
    """Plug and unplug; give the time that plugging took, and what of it others took."""
    (wish,), (none,) = load([str(plugged)]), load([str(empty)])
    whole = 0.0
    total = Clock()
    for _ in range(ROUNDS):
        with timed() as clock, connect(wish.sandbox, Policy()) as driver:
            begin = time.perf_counter()
            converge.apply(driver, wish.sandbox)
            whole += time.perf_counter() - begin
        for who, seconds in clock.seconds.items():
            total.seconds[who] += seconds
        with connect(none.sandbox, Policy()) as driver:
            converge.apply(driver, none.sandbox, allowance=Allowance())
    return whole, total
