"""Files and folders in which there is nothing to read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.errors import ManifestError
from reconciler.manifest.files import MAX_BYTES
from reconciler.manifest.load import load
from tests.manifest.texts import manifest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(*paths: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(paths)
    return [str(problem) for problem in caught.value.problems]


def test_missing_file() -> None:
    assert problems("web-1.yaml") == ["web-1.yaml: No such file or directory"]


def test_file_below_a_file() -> None:
    Path("web-1.yaml").write_text(manifest())
    assert problems("web-1.yaml/web-1.yaml") == ["web-1.yaml/web-1.yaml: Not a directory"]


def test_empty_folder(folder: Path) -> None:
    (folder / "below").mkdir()
    assert problems("below") == ["below: this folder contains no manifest (*.yaml, *.yml, *.json)"]


def test_folder_of_other_files_and_hidden_ones(folder: Path) -> None:
    for name in ("README.md", ".web-1.yaml", "web-1.yaml.orig", "..data/web-1.yaml"):
        file = folder / "below" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(manifest())
    assert problems("below") == ["below: this folder contains no manifest (*.yaml, *.yml, *.json)"]


def test_empty_file_in_a_folder_of_others(folder: Path) -> None:
    (folder / "a.yaml").write_text(manifest())
    (folder / "b.yaml").write_text("")
    assert problems(".") == [
        "./b.yaml: is empty; to remove what reconciler created, write empty sections such as `routes: []`"
    ]


def test_a_link_that_leads_nowhere() -> None:
    Path("a.yaml").symlink_to("b.yaml")
    assert problems(".") == ["./a.yaml: No such file or directory"]


def test_file_above_the_bound() -> None:
    Path("big.yaml").write_text(manifest())
    os.truncate("big.yaml", MAX_BYTES + 1)
    assert problems("big.yaml") == ["big.yaml: larger than 32 MiB"]


def test_file_at_the_bound() -> None:
    text = manifest().encode()
    Path("big.yaml").write_bytes(text + b"#" * (MAX_BYTES - len(text) - 1) + b"\n")
    assert [each.sandbox.id for each in load(["big.yaml"])] == ["web-1"]


def test_all_files_are_reported_at_once_in_the_order_given(folder: Path) -> None:
    (folder / "below").mkdir()
    Path("b.yaml").write_text(manifest("apiVersion: 2"))
    Path("a.yaml").write_text("sandbox: [")
    assert problems("b.yaml", "c.yaml", "below", "a.yaml") == [
        "b.yaml:1:13: apiVersion: 2 is not valid; expected reconciler/v1",
        "c.yaml: No such file or directory",
        "below: this folder contains no manifest (*.yaml, *.yml, *.json)",
        "a.yaml:2:1: while parsing a flow node, did not find expected node content",
    ]
