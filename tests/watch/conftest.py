"""Fixtures that start readers of manifests and leave no thread or descriptor, and that make namespaces to keep."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Kernel
from tests.watch.running import Keep, Kept
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


@pytest.fixture
def restored_log() -> Iterator[None]:
    """Let a test configure the log; afterwards it is as it was."""
    root = logging.getLogger("reconciler")
    before, hook = (root.handlers, root.level, root.propagate), threading.excepthook
    yield
    threading.excepthook = hook
    for each in root.handlers:
        each.close()
    root.handlers, root.level, root.propagate = before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the manifests of `keep`."""
    return tmp_path / "manifests"


@pytest.fixture
def keep(kernel: Kernel, folder: Path) -> Keep:
    """Make namespaces with manifests in the folder."""
    numbers = itertools.count()

    def kept(*, veth: bool = False) -> Kept:
        return Kept(kernel, folder, next(numbers), veth=veth)

    return kept
