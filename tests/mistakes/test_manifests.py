"""Each mistake that an author makes in a manifest has one message, with its place, that tells what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.cli.main import main
from tests.mistakes import addresses, fields, notation
from tests.mistakes.manifest import GRADES, IPVS, MANIFEST, Row

ROWS: list[Row] = [*notation.ROWS, *fields.ROWS, *addresses.ROWS]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_mistake_has_one_message(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    assert row.grade in GRADES
    Path("web-1.yaml").write_text(row.text)
    assert main(["validate", "web-1.yaml"]) == 2
    out, err = capsys.readouterr()
    first, *excerpt, count = err.splitlines()
    assert (out, first, count) == ("", f"web-1.yaml:{row.message}", "1 problem in 1 file.")
    assert len(excerpt) in {0, 2}


def test_without_a_mistake_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    Path("web-1.yaml").write_text(MANIFEST + IPVS)
    assert main(["validate", "web-1.yaml"]) == 0
    assert capsys.readouterr() == ("1 manifest valid\n", "")


def test_no_row_is_there_twice() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 100
