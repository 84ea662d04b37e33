"""What takes the kernel long to close is closed, and who asks for that does not wait."""

from __future__ import annotations

import os

from reconciler.netlink.closer import close_later
from tests.watch.running import until


def is_closed(writing: int) -> bool:
    """Return whether nobody can read any more what is written."""
    try:
        os.write(writing, b"x")
    except BrokenPipeError:
        return True
    return False


def test_all_descriptors_are_closed_soon() -> None:
    pipes = [os.pipe() for _ in range(20)]
    for reading, _ in pipes:
        close_later(reading)
    until(lambda: all(is_closed(writing) for _, writing in pipes), "they are closed")
    for _, writing in pipes:
        os.close(writing)
