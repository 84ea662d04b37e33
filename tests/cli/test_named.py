"""What the commands against one sandbox say of a watcher."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.cli import named
from reconciler.model.sandbox import NetnsAddress, Sandbox

BOX = Sandbox(id="box", driver=NetnsAddress(name="box"))


@pytest.mark.parametrize(
    ("watched", "file", "told"),
    [
        ("", "manifests/box.yaml", False),
        ("{folder}/manifests/box.yaml", "", True),
        ("{folder}/manifests/box.yaml", "manifests/box.yaml", False),
        ("{folder}/manifests/box.yaml", "link.yaml", False),
        ("{folder}/manifests/box.yaml", "box.yaml", True),
        ("./manifests/box.yaml", "manifests/box.yaml", False),
        ("manifests/box.yaml", "{folder}/manifests/box.yaml", False),
        ("manifests/box.yaml", "other-manifests/box.yaml", True),
        ("manifests/box.yaml", "<stdin>", True),
    ],
)
def test_a_watch_by_another_manifest_is_told(
    watched: str,
    file: str,
    told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "box.yaml").touch()
    os.symlink("manifests/box.yaml", "link.yaml")
    watched, file = (each.format(folder=tmp_path) for each in (watched, file))
    said = f"box: `reconciler watch` will revert whatever differs from {watched}"
    assert named.undone_words(BOX, {"box": watched} if watched else {}, file) == (said if told else "")
