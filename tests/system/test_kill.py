"""Killed at any point and run again, an apply converges; a killed one locks nobody out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers import connect
from reconciler.drivers.given import GivenDevices
from reconciler.drivers.netns import NetnsDriver
from reconciler.manifest.load import load
from reconciler.model.sandbox import Sandbox
from reconciler.netlink import execute as netlink
from reconciler.operations import Operation
from reconciler.operations.outcome import Status
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.segments import segments
from tests.system.box import Box, SandboxPlace, commands, differences, errors, nic


def in_a_process_that_is_killed(work: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            # What failed was not killed.
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def execute(sandbox: Sandbox, operations: Sequence[Operation]) -> None:
    with connect(sandbox, POLICY) as driver:
        outcomes = [each for batch in driver.execute(segments(operations)) for each in batch]
    assert {each.status for each in outcomes} == {Status.DONE}


def route(dest: str, host: str, device: str, **fields: Any) -> dict[str, Any]:
    return {"dest": dest, "gateway": host, "device": device} | fields


def neighbour(address: str, device: str, number: int) -> dict[str, Any]:
    return {"address": address, "device": device, "hwAddr": f"02:42:20:6f:a3:f{number}"}


# The peer that one IPv6 address has first, and another one then.
PEER = {"peer": "fd01::8/64", "dad": False}


def stories(devices: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two states between which nearly everything changes: three names in a cycle, a NIC goes, another comes."""
    one, two, three, gone, new = devices
    first = {
        "interfaces": [
            nic(one, "a", 1, addresses=["10.1.0.2/16", "10.1.0.3/16", PEER | {"address": "fd01::2"}]),
            nic(two, "b", 2),
            nic(three, "c", 3),
            nic(gone, "d", 4),
        ],
        "routes": [
            route("default", "10.1.0.1", "a"),
            route("default", "fd01::1", "a"),
            route("192.168.1.0/24", "10.2.0.1", "b"),
            route("192.168.2.0/24", "10.3.0.1", "c"),
            route("192.168.3.0/24", "10.4.0.1", "d"),
        ],
        "neighbours": [
            neighbour("10.1.0.1", "a", 1),
            neighbour("10.2.0.1", "b", 2),
            neighbour("10.3.0.1", "c", 3),
            neighbour("10.4.0.1", "d", 4),
            {"address": "fd01::7", "device": "a", "proxy": True},
        ],
        "rules": [
            {"priority": 100, "from": "10.1.0.0/16", "table": 100},
            {"priority": 100, "family": "ipv6", "iif": "a", "table": 100},
            {"priority": 110, "from": "10.1.0.0/16", "invert": True, "dport": 80, "table": 100},
            {"priority": 120, "from": "10.2.0.0/16", "ipproto": "tcp", "table": 100},
        ],
    }
    second = {
        "interfaces": [
            nic(one, "b", 1, addresses=["10.1.0.3/16", PEER | {"address": "fd01::3"}]),
            nic(two, "c", 2, mtu=1400),
            nic(three, "a", 7),
            nic(new, "d", 5),
        ],
        "routes": [
            route("default", "10.1.0.9", "b"),
            route("default", "fd01::9", "b"),
            route("192.168.1.0/24", "10.2.0.1", "c", mtu=1300),
            route("192.168.4.0/24", "172.31.0.1", "d"),
            {"dest": "172.31.0.1", "device": "d"},
        ],
        "neighbours": [
            neighbour("10.1.0.1", "b", 1),
            neighbour("10.2.0.1", "c", 7),
            neighbour("10.3.0.1", "a", 3),
            neighbour("172.31.0.1", "d", 4),
            {"address": "10.3.0.77", "device": "a", "proxy": True},
        ],
        "rules": [
            {"priority": 100, "from": "10.1.0.0/16", "table": 100},
            {"priority": 100, "table": 100, "suppressPrefixlength": 0},
            {"priority": 110, "from": "10.1.0.0/16", "dport": 80, "table": 100},
            {"priority": 120, "ipproto": "tcp", "table": 100},
            {"priority": 120, "from": "10.2.0.0/16", "ipproto": "tcp", "table": 100},
        ],
    }
    return first, second


@pytest.fixture
def devices(kernel: Kernel) -> list[str]:
    return [kernel.tap() for _ in range(5)]


def kill_after_each(
    box: SandboxPlace, *ring: dict[str, Any], state: Callable[[], dict[str, Any]], stride: int = 1
) -> list[int]:
    """Kill each change of a ring of states after each of its operations in turn, and run it again.

    Return how many operations each has. `state`: what has to be as without a kill. `stride`: of so many operations in a
    row, after one.
    """
    plans, expected = [], []
    box.apply("--allow-delete", "all", **ring[-1])
    for wanted in ring:
        plans.append(box.diff(**wanted))
        box.apply("--allow-delete", "all", **wanted)
        expected.append(state())
    for done in range(1, max(map(len, plans)) + 1, stride):
        for wanted, planned, calm in zip(ring, plans, expected, strict=True):
            (manifest,) = load([box.write(**wanted)])
            operations = box.plan(manifest.sandbox)
            # Nothing is left of what was killed before. Links go in the order in which they came.
            assert sorted(commands(operations)) == sorted(planned)
            if done <= len(operations):
                in_a_process_that_is_killed(partial(execute, manifest.sandbox, operations[:done]))
            assert main(["apply", "--allow-delete", "all", str(box.file)]) == 0
            assert differences(state(), calm) == [], f"killed after {commands(operations)[:done][-1:]}"
    assert sorted(box.diff(**ring[0])) == sorted(plans[0])
    return [len(each) for each in plans]


def test_killed_after_each_operation_in_turn_and_run_again(box: Box, devices: list[str]) -> None:
    assert min(kill_after_each(box, *stories(devices), state=box.state)) > 20


def failing(devices: list[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return a state, one that cannot be reached, and one to which the other one is mended."""
    one, two, gone, new = devices[:4]
    first = {
        "interfaces": [nic(one, "a", 1), nic(two, "b", 2), nic(gone, "d", 4)],
        "routes": [route("default", "10.1.0.1", "a"), route("192.168.3.0/24", "10.4.0.1", "d")],
    }
    interfaces = [nic(one, "b", 1, mtu=1400), nic(two, "a", 2), nic(new, "c", 3)]
    routes = [route("default", "10.1.0.9", "b"), route("192.168.1.0/24", "10.3.0.1", "c")]
    # The kernel has no such source address.
    wrong = [*routes, route("192.168.9.0/24", "10.1.0.1", "b", source="198.51.100.77")]
    mended = {"interfaces": interfaces, "routes": routes}
    return first, {"interfaces": interfaces, "routes": wrong}, mended


class Steps:
    """Kills this process after so many steps: messages that are sent to a kernel, and changes of the record."""

    def __init__(self, left: int) -> None:
        self._left = left
        netlink.BATCH = 1
        netlink.send_all = self._each_counted(netlink.send_all)
        for name in ("begin", "end"):
            setattr(GivenDevices, name, self._counted(getattr(GivenDevices, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            answer = function(*arguments)
            self._count()
            return answer

        return call

    def _each_counted(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def call(*arguments: Any) -> Iterator[Any]:
            for answer in function(*arguments):
                self._count()
                yield answer

        return call

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def is_killed_in_step(step: int, *words: str) -> bool:
    """Run our command in a process that is killed after so many steps; return whether it made so many."""
    pid = os.fork()
    if pid == 0:
        try:
            Steps(step)
            main(["apply", "--allow-delete", "all", *words])
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("options", [[], ["--all-or-nothing"]], ids=["kept", "undone"])
def test_killed_in_each_step_of_a_recovery_and_run_again(
    box: Box, devices: list[str], options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """No device is lost, and whatever was half kept or half undone is neither in the way nor believed."""
    first, wrong, mended = failing(devices)
    box.apply("--allow-delete", "all", **first)
    box.apply("--allow-delete", "all", **mended)
    expected = box.state()
    step = 0
    killed = True
    while killed:
        step += 1
        box.apply("--allow-delete", "all", **first)
        killed = is_killed_in_step(step, *options, box.write(**wrong))
        box.apply("--allow-delete", "all", **mended)
        assert box.state() == expected, f"killed in step {step}"
    box.apply("--allow-delete", "all", interfaces=[], routes=[])
    assert set(box.state()["links"]) == {"lo"}
    for device in devices[:4]:
        assert "reconciler" not in ip("link", "show", device)
    assert step > 12
    capfd.readouterr()


def test_a_killed_process_leaves_no_lock(box: Box, devices: list[str]) -> None:
    def work() -> None:
        driver = NetnsDriver(box.address, POLICY)
        driver.lock().__enter__()

    in_a_process_that_is_killed(work)
    box.apply(interfaces=[nic(devices[0])])


def test_one_apply_at_a_time(box: Box, devices: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = box.state()
    driver = NetnsDriver(box.address, POLICY)
    with driver.lock():
        assert main(["apply", box.write(interfaces=[nic(devices[0])])]) == 2
    driver.close()
    assert errors(capsys) == (
        f"box: another reconciler is changing netns {box.namespace}; try again when it has finished\n"
    )
    assert box.state() == before
    box.apply(interfaces=[nic(devices[0])])


def test_three_interfaces_swap_names_in_a_cycle(box: Box, devices: list[str]) -> None:
    names = ("a", "b", "c")

    def sections(*order: str) -> dict[str, Any]:
        return {
            "interfaces": [nic(device, name, n) for n, (device, name) in enumerate(zip(devices, order, strict=False))]
        }

    box.apply(**sections(*names))
    before = box.state()["links"]
    assert box.diff(**sections("b", "c", "a")) == [
        "ip link set dev a name rename0",
        "ip link set dev c name a",
        "ip link set dev b name c",
        "ip link set dev rename0 name b",
    ]
    box.apply(**sections("b", "c", "a"))
    after = box.state()["links"]
    assert {name: after[name] for name in names} == {"b": before["a"], "c": before["b"], "a": before["c"]}
