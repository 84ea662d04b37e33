"""What others learn from the watcher of this host; what it answers is in test_report.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.watch import client
from reconciler.watch.client import reverting_manifests


def watched(monkeypatch: pytest.MonkeyPatch, *sandboxes: dict[str, str]) -> None:
    monkeypatch.setattr(client, "read_status", lambda: {"sandboxes": sandboxes})


def test_a_watch_that_will_undo_a_change_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"sandbox": "box", "file": "box.yaml", "state": "converged"}
    watched(monkeypatch, {"sandbox": "other", "file": "other.yaml", "state": "converged"}, entry)
    assert reverting_manifests() == {"other": "other.yaml", "box": "box.yaml"}
    watched(monkeypatch, entry | {"state": "paused"})
    assert not reverting_manifests()
    watched(monkeypatch)
    assert not reverting_manifests()


def test_without_a_watch_nothing_is_undone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "SOCKET", str(tmp_path / "none"))
    assert not reverting_manifests()
