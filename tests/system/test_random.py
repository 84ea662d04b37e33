"""Random manifests on a real namespace: B after A is the same as B from nothing, by operations or by script."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reconciler import converge
from reconciler.cli.script import render_script
from reconciler.drivers.netns import NetnsDriver
from reconciler.manifest.load import Manifest
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.preview import preview
from reconciler.safety import Allowance
from tests.conftest import Kernel, ip
from tests.examples import examples
from tests.strategies import sandboxes
from tests.system.box import Box, differences, make_box

# Named by the process, as several may run at once.
DEVICES = [f"r{os.getpid()}d{number}" for number in range(4)]
PAIRS = st.tuples(*[sandboxes(DEVICES, NetnsAddress(name="replaced"))] * 2)
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
    driver = NetnsDriver(box.address)
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
        ran = subprocess.run(["sh", "-c", script(other, second)], check=False, stderr=subprocess.PIPE, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert differences(other.state(), expected) == []


def script(box: Box, sandbox: Sandbox) -> str:
    wanted = of(box, sandbox)
    driver = NetnsDriver(box.address)
    try:
        manifest = Manifest(file="box.yaml", text="", document=0, sandbox=wanted)
        return "set -e\n" + render_script(manifest, preview(driver, wanted))
    finally:
        driver.close()


@pytest.mark.usefixtures("root")
@SLOW
@given(pair=PAIRS)
def test_whatever_is_undone_is_as_it_was(tmp_path: Path, pair: tuple[Sandbox, Sandbox]) -> None:
    first, second = pair
    with boxes(tmp_path) as (box, _):
        before = apply(box, first)
        apply(box, second)
        assert differences(apply(box, first), before) == []
