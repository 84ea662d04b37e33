"""An apply that is killed between any two messages to QEMU and the guest: a plain one afterwards finishes it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from reconciler.cli.main import main
from tests.conftest import Kernel
from tests.system.box import nic
from tests.vm.steps import watched
from tests.vm.vm import Vm, make_tap


def run_killed(file: str, at: int) -> str:
    """Apply in a process that is killed at a step; tell what that was, or give nothing if it came to its end first."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0

        def step(what: str) -> None:
            nonlocal count
            count += 1
            if count == at:
                os.write(write, what.encode())
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with watched(step):
                main(["apply", "--allow-delete", "all", file])
        finally:
            os._exit(0)
    os.close(write)
    status = os.waitpid(pid, 0)[1]
    with os.fdopen(read) as pipe:
        what = pipe.read()
    assert status == (signal.SIGKILL if what else 0)
    return what


ROUTE = {"dest": "10.8.0.0/16", "gateway": "10.1.0.1", "device": "a"}


def stories(one: str, two: str) -> dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]]:
    """Give what is there, what is wanted, and what QEMU is told meanwhile."""
    first, second = nic(one, "a", 1), nic(two, "b", 2, queues=2)
    plug, unplug = ["netdev_add", "device_add"], ["device_del", "netdev_del"]
    return {
        "plug": ([], [first], plug),
        "unplug": ([first, second], [first], unplug),
        "replug": ([nic(two, "a", 1, queues=2)], [nic(two, "a", 1, queues=3)], unplug + plug),
    }


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("story", ["plug", "unplug", "replug"])
def test_killed_at_each_step_in_turn_and_run_again(vm: Vm, kernel: Kernel, story: str) -> None:
    before, after, told = stories(make_tap(kernel), make_tap(kernel, "multi_queue"))[story]
    seen: list[str] = []
    while True:
        vm.apply(interfaces=before, routes=[ROUTE] if before else [])
        file = vm.write(interfaces=after, routes=[ROUTE])
        what = run_killed(file, len(seen) + 1)
        assert main(["apply", file]) == 0, f"killed {what}"
        vm.assert_is(after)
        assert main(["diff", file]) == 0
        if not what:
            break
        seen.append(what)
    for moment in ("before", "during", "after"):
        assert [what for what in seen if what in {f"{moment} {command}" for command in told}] == [
            f"{moment} {command}" for command in told
        ]
