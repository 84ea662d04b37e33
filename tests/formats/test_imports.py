"""Files of other programs with the manifest that they become, and every line about what is left out or wrong.

A case is a folder: input files, `manifest.expected` (missing if the import fails), and `left-out.expected`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.cli.main import main

CASES = sorted((Path(__file__).parent / "cases").iterdir())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(case)
    files = sorted(each.name for each in case.iterdir() if each.is_file() and each.suffix != ".expected")
    code = main(["import", "--sandbox", "web-1", "--netns", "web-1", *files])
    manifest = case / "manifest.expected"
    out, err = capsys.readouterr()
    assert out == (manifest.read_text() if manifest.exists() else "")
    assert err == (case / "left-out.expected").read_text()
    assert code == (0 if manifest.exists() else 2)
