"""Fixtures of the tests of links that are made in a sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Kernel
from tests.system.box import Box, make_box


@pytest.fixture
def box(kernel: Kernel, tmp_path: Path) -> Box:
    return make_box(kernel, tmp_path)
