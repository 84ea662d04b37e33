"""Random manifests on a real namespace: B after A is the same as B from nothing, by operations or by script."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reconciler import converge
from reconciler.checks import Around, Verdict
from reconciler.cli.script import render_script
from reconciler.drivers.netns import NetnsDriver
from reconciler.errors import ApplyError
from reconciler.failure import CheckError
from reconciler.manifest.load import Manifest
from reconciler.model.check import Check
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.netlink import execute as netlink
from reconciler.netlink.channel import Channel
from reconciler.netlink.execute import IsGone, Request
from reconciler.operations import Operation
from reconciler.operations.outcome import Outcome, Status
from reconciler.preview import preview
from reconciler.safety import Allowance
from reconciler.values import replace
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.examples import examples
from tests.strategies import USUAL_OPTIONS, sandboxes
from tests.system.box import Box, differences, make_box

# Named by the process, as several may run at once.
DEVICES = [f"r{os.getpid()}d{number}" for number in range(4)]
PAIRS = st.tuples(*[sandboxes(DEVICES, NetnsAddress(name="replaced"), kinds=USUAL_OPTIONS)] * 2)
# Shrinking would take minutes on a kernel; what fails is printed as it is.
SLOW = settings(
    max_examples=examples(60),
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@contextmanager
def boxes(folder: Path) -> Iterator[tuple[Box, Box]]:
    """Give two namespaces; the devices go from one to the other."""
    kernel = Kernel()
    try:
        for device in DEVICES:
            ip("tuntap", "add", "dev", device, "mode", "tap")
        kernel.adopt(*DEVICES)
        made = make_box(kernel, folder), make_box(kernel, folder)
        for box in made:
            # Without any address at all a namespace has no local table, and refuses gateways that are on-link.
            ip("link", "set", "dev", "lo", "up", namespace=box.namespace)
        yield made
    finally:
        kernel.remove()


def of(box: Box, sandbox: Sandbox) -> Sandbox:
    return replace(sandbox, id="box", driver=box.address)


def apply(box: Box, sandbox: Sandbox) -> dict[str, Any]:
    """Apply, look that nothing is left to do, and give the state."""
    driver = NetnsDriver(box.address, POLICY)
    try:
        converge.apply(driver, of(box, sandbox), allowance=Allowance())
        assert preview(driver, of(box, sandbox)).plan.operations == ()
    finally:
        driver.close()
    return box.state()


def empty(box: Box) -> None:
    apply(box, Sandbox(id="box", driver=box.address, interfaces=(), neighbours=(), routes=(), rules=()))


@pytest.mark.usefixtures("root")
@SLOW
@given(pair=PAIRS)
def test_b_after_a_is_b_from_nothing(tmp_path: Path, pair: tuple[Sandbox, Sandbox]) -> None:
    first, second = pair
    with boxes(tmp_path) as (box, fresh):
        apply(box, first)
        after = apply(box, second)
        empty(box)
        assert differences(apply(fresh, second), after) == []


@pytest.mark.usefixtures("root")
@SLOW
@given(pair=PAIRS)
def test_the_script_gives_the_same_state(tmp_path: Path, pair: tuple[Sandbox, Sandbox]) -> None:
    first, second = pair
    with boxes(tmp_path) as (box, other):
        apply(box, first)
        expected = apply(box, second)
        empty(box)
        apply(other, first)
        words = script(other, second)
        ran = subprocess.run(["sh", "-c", words], check=False, stderr=subprocess.PIPE, text=True)
        # What the kernel may remove by itself first ends with `|| true`.
        gone = {"RTNETLINK answers: No such process"} if "|| true" in words else set()
        assert (ran.returncode, set(ran.stderr.splitlines()) - gone) == (0, set())
        assert differences(other.state(), expected) == []


def script(box: Box, sandbox: Sandbox) -> str:
    wanted = of(box, sandbox)
    driver = NetnsDriver(box.address, POLICY)
    try:
        manifest = Manifest(file="box.yaml", text="", document=0, sandbox=wanted)
        return "set -e\n" + render_script(manifest, preview(driver, wanted))
    finally:
        driver.close()


class Failing(Around):
    """Checks of which one fails after each change."""

    def look_after(self) -> list[Verdict]:
        return [Verdict(each, "no answer") for each in CHECKS]


CHECKS = (Check(kind="ping", address="192.0.2.1"),)


def undo(box: Box, sandbox: Sandbox) -> None:
    """Apply, and have it undone. It says that all is as it was, by all that the kernel reports."""
    wanted = replace(of(box, sandbox), checks=CHECKS)
    with pytest.MonkeyPatch.context() as patched, closing(NetnsDriver(box.address, POLICY)) as driver:
        patched.setattr(converge, "checks_around", Failing)
        with pytest.raises(CheckError) as caught:
            converge.apply(driver, wanted, allowance=Allowance())
    assert caught.value.counts.endswith("box is as it was before."), caught.value.counts


@pytest.mark.usefixtures("root")
@SLOW
@given(pair=PAIRS)
def test_whatever_is_undone_is_as_it_was(tmp_path: Path, pair: tuple[Sandbox, Sandbox]) -> None:
    first, second = pair
    with boxes(tmp_path) as (box, _):
        before = apply(box, first)
        undo(box, second)
        assert differences(box.state(), before) == []
        apply(box, second)
        assert differences(apply(box, first), before) == []


NEEDED_BY_NOTHING = {"AddNeighbour", "ReplaceNeighbour", "DeleteNeighbour", "DeleteRoute"}


@contextmanager
def failing(operation: Operation) -> Iterator[None]:
    """Let the kernel refuse an operation whenever it is tried."""
    send_all = netlink.send_all

    def refuse(channel: Channel, batches: Iterable[Sequence[Request]], is_gone: IsGone) -> Iterator[list[Outcome]]:
        for batch in batches:
            left = [each for each in batch if each.operation != operation]
            sent = iter(next(send_all(channel, [left], is_gone)) if left else [])
            yield [
                Outcome(operation, Status.FAILED, "the kernel: no") if each.operation == operation else next(sent)
                for each in batch
            ]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(netlink, "send_all", refuse)
        patched.setattr(netlink, "BATCH", 200)
        yield


@pytest.mark.usefixtures("root")
@SLOW
@given(pair=PAIRS, number=st.integers(0), all_or_nothing=st.booleans())
def test_whatever_fails_the_others_are_done_and_it_can_be_mended(
    tmp_path: Path, pair: tuple[Sandbox, Sandbox], number: int, all_or_nothing: bool
) -> None:
    first, second = pair
    with boxes(tmp_path) as (box, _):
        before = apply(box, first)
        driver = NetnsDriver(box.address, POLICY)
        try:
            wanted = of(box, second)
            operations = preview(driver, wanted).plan.operations
            if not operations:
                return
            failed = operations[number % len(operations)]
            with failing(failed), pytest.raises(ApplyError) as caught:
                converge.apply(driver, wanted, allowance=Allowance(), all_or_nothing=all_or_nothing)
        finally:
            driver.close()
        told = caught.value.counts
        # What a change of a link took along may need the very operation that fails; then that is told.
        if all_or_nothing and "NOT" not in told:
            assert differences(box.state(), before) == [], failed.command
        if not all_or_nothing and failed.kind in NEEDED_BY_NOTHING:
            assert "not tried" not in told, (failed.command, told)
            assert "undone" not in told, (failed.command, told)
        after = apply(box, second)
        apply(box, first)
        assert differences(apply(box, second), after) == []
