"""An engine in a real namespace, closed at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from reconciler.netlink.channel import ROUTE, LocalKernel
from reconciler.netlink.engine import Engine

OpenEngine = Callable[[str], Engine]


@pytest.fixture
def open_engine() -> Iterator[OpenEngine]:
    """Give a function that opens an engine in the namespace of a name."""
    with ExitStack() as stack:

        def open_engine(namespace: str) -> Engine:
            descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            try:
                channel = LocalKernel(descriptor).open(ROUTE)
            finally:
                os.close(descriptor)
            stack.callback(channel.close)
            return Engine(channel)

        yield open_engine
