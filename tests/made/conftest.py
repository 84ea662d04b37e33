"""Fixtures of the tests of links that are made in a sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.manifest.load import load
from tests.conftest import Kernel
from tests.system.box import Box, SandboxPlace, make_box


@pytest.fixture
def box(kernel: Kernel, tmp_path: Path) -> Box:
    return make_box(kernel, tmp_path)


def state_of(place: SandboxPlace) -> dict[str, Any]:
    """Return the state, without the MAC addresses and MTUs that the manifest leaves to the kernel.

    A port may have the MAC address of its bond.
    """
    found = place.state()
    (manifest,) = load([str(place.file)])
    for each in manifest.sandbox.interfaces or ():
        link = found["links"][each.name]
        link["mac"] = link["mac"] if each.hw_addr and not each.master else None
        link["mtu"] = link["mtu"] if each.mtu else None
    return found
