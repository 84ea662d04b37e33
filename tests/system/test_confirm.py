"""Changes that wait to be confirmed: see confirm_alone.py, which runs in mounts of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import alone


@pytest.mark.usefixtures("root")
def test_changes_that_wait(request: pytest.FixtureRequest, repeats: Callable[[int], int]) -> None:
    """The tests of the file ask for `repeats` themselves."""
    del repeats
    alone.run("tests/system/confirm_alone.py", request.config)
