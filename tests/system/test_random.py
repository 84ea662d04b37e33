"""Random manifests on a real namespace: B after A is the same kernel state as B from nothing, by operations or by script."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reconciler import converge
from reconciler.cli.render import render_script
from reconciler.drivers.netns import NetnsDriver
from reconciler.manifest.load import Manifest
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.preview import preview
from reconciler.safety import Allowance
from tests.conftest import Kernel, ip
from tests.strategies import sandboxes
from tests.system.box import Box, differences, make_box

# Named by the process, as several may run at once.
DEVICES = [f"r{os.getpid()}d{number}" for number in range(4)]
PAIRS = st.tuples(*[sandboxes(DEVICES, NetnsAddress(name="replaced"))] * 2)
# Shrinking would take minutes on a kernel; what fails is printed as it is.
SLOW = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def boxes(kernel: Kernel, tmp_path: Path) -> tuple[Box, Box]:
    """Give two namespaces; the devices go from one to the other."""
    for device in DEVICES:
        subprocess.run(["ip", "tuntap", "add", "dev", device, "mode", "tap"], check=True)
    kernel.adopt(*DEVICES)
    made = make_box(kernel, tmp_path), make_box(kernel, tmp_path)
    for box in made:
        # Without any address at all a namespace has no local table, and refuses gateways that are on-link.
        ip("link", "set", "dev", "lo", "up", namespace=box.namespace)
    return made


def of(box: Box, sandbox: Sandbox) -> Sandbox:
    return Sandbox(id="box", driver=box.address, interfaces=sandbox.interfaces, routes=sandbox.routes)


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
    apply(box, Sandbox(id="box", driver=box.address, interfaces=(), routes=()))


@SLOW
@given(pair=PAIRS)
def test_b_after_a_is_b_from_nothing(boxes: tuple[Box, Box], pair: tuple[Sandbox, Sandbox]) -> None:
    box, fresh = boxes
    first, second = pair
    apply(box, first)
    after = apply(box, second)
    empty(box)
    assert differences(apply(fresh, second), after) == []
    empty(fresh)


@SLOW
@given(pair=PAIRS)
def test_the_script_gives_the_same_state(boxes: tuple[Box, Box], pair: tuple[Sandbox, Sandbox]) -> None:
    box, other = boxes
    first, second = pair
    apply(box, first)
    expected = apply(box, second)
    empty(box)
    apply(other, first)
    driver = NetnsDriver(other.address)
    try:
        wanted = of(other, second)
        manifest = Manifest(file="box.yaml", text="", document=0, sandbox=wanted)
        script = "set -e\n" + render_script(manifest, preview(driver, wanted))
    finally:
        driver.close()
    subprocess.run(["sh", "-c", script], check=True, capture_output=True)
    assert differences(other.state(), expected) == []
    empty(other)


@SLOW
@given(pair=PAIRS)
def test_whatever_is_undone_is_as_it_was(boxes: tuple[Box, Box], pair: tuple[Sandbox, Sandbox]) -> None:
    box, _ = boxes
    first, second = pair
    before = apply(box, first)
    apply(box, second)
    assert differences(apply(box, first), before) == []
    empty(box)
