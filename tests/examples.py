"""The number of examples of a property test: a quarter in `make test`, ten times as many in `make soak`."""

from __future__ import annotations

from hypothesis import settings

# The number that hypothesis takes unless told otherwise.
_USUAL = 100


def examples(count: int) -> int:
    """Scale a number of examples, or of repetitions, by the profile that is loaded (tests/conftest.py)."""
    return max(1, count * settings().max_examples // _USUAL)
