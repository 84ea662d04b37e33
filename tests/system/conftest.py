"""Fixtures of the tests on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Kernel
from tests.system.box import Box, DomainBox, KataBox, SandboxPlace, VmBox, make_box


@pytest.fixture
def box(kernel: Kernel, tmp_path: Path) -> Box:
    return make_box(kernel, tmp_path)


@pytest.fixture(params=["netns", "vm", "libvirt", "kata"])
def place(request: pytest.FixtureRequest, kernel: Kernel, tmp_path: Path) -> Iterator[SandboxPlace]:
    """Give a sandbox of each kind in turn. It lets devices go before `kernel` removes them."""
    if request.param == "netns":
        yield make_box(kernel, tmp_path)
        return
    if request.param == "libvirt":
        domain = DomainBox(kernel, tmp_path / "box.yaml", request.getfixturevalue("domain"))
        yield domain
        domain.empty()
        return
    kind = {"vm": VmBox, "kata": KataBox}[request.param]
    box = kind(kernel, tmp_path / "box.yaml", request.getfixturevalue("guest"))
    yield box
    box.empty()
