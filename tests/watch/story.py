"""Helpers for stories of manifests: manifests with versions, and a reader whose results are all recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from reconciler.watch.manifests import ManifestReader, ManifestSet
from tests.manifest.texts import manifest, nic

Versions = dict[str, int]


def text(number: int, version: int = 0, device: int | None = None) -> str:
    """Write the manifest of sandbox sN: it has as many routes as its version says."""
    own = nic(
        f"device: tap{number if device is None else device}",
        f"hwAddr: 02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
    )
    routes = [f"- dest: 10.{each}.0.0/16\n  gateway: 10.0.0.1\n  device: eth0" for each in range(1, version + 1)]
    return manifest(f"sandbox: s{number}", f"driver: {{netns: {{name: s{number}}}}}", nics=[own], routes=routes or None)


def versions(reading: ManifestSet) -> Versions:
    return {name: len(each.sandbox.routes or ()) for name, each in reading.manifests.items()}


class Watch:
    """Reads manifests as the watcher does, when it is woken, and records all results."""

    def __init__(self, *paths: str, rescan: float = 60.0) -> None:
        self.readings: list[ManifestSet] = []
        self.reader = ManifestReader(paths, rescan)
        self._woken = threading.Event()
        self.reader.start(self._woken.set)

    def _next(self, seconds: float) -> bool:
        if not self._woken.wait(max(seconds, 0)):
            return False
        self._woken.clear()
        if reading := self.reader.read():
            self.readings.append(reading)
        return True

    def until(self, wish: Callable[[ManifestSet], bool], seconds: float = 60.0) -> ManifestSet:
        """Return the latest set of manifests, once one that was read since the call meets a condition."""
        end, seen = time.monotonic() + seconds, len(self.readings)
        while not any(map(wish, self.readings[seen:])):
            if not self._next(end - time.monotonic()):
                pytest.fail(f"not in {seconds} s; the last one was {self.readings[-1:]}")
        return self.readings[-1]

    def until_versions(self, wanted: Versions, seconds: float = 60.0) -> ManifestSet:
        return self.until(lambda reading: versions(reading) == wanted, seconds)

    def run(self, seconds: float) -> list[ManifestSet]:
        """Read for so many seconds; return the results."""
        end, seen = time.monotonic() + seconds, len(self.readings)
        while (left := end - time.monotonic()) > 0:
            self._next(left)
        return self.readings[seen:]

    def run_during(self, action: Callable[[], object], more: float = 0.5) -> list[ManifestSet]:
        """Read while an action runs, and some seconds more; return the results."""
        seen, thread = len(self.readings), threading.Thread(target=action)
        thread.start()
        while thread.is_alive():
            self.run(0.05)
        thread.join()
        self.run(more)
        return self.readings[seen:]


Start = Callable[..., Watch]


def write(folder: str, numbers: Sequence[int], version: int) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Path(folder, f"s{number}.yaml").write_text(text(number, version))


def same(numbers: Sequence[int], version: int) -> Versions:
    return {f"s{number}": version for number in numbers}
