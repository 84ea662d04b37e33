"""A fixture that starts readers of manifests, and checks that no thread or descriptor is left of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.watch.story import Start, Watch


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start readers in a folder of their own; at the end, no thread and no descriptor is left."""
    monkeypatch.chdir(tmp_path)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    watches: list[Watch] = []

    def started(*paths: str, rescan: float = 60.0) -> Watch:
        watches.append(Watch(*paths, rescan=rescan))
        return watches[-1]

    yield started
    for watch in watches:
        watch.reader.stop()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)
