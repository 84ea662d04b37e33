"""Each folder below `cases` is a case: a manifest, what is observed, and what `diff` prints.

`FINGERPRINT` stands for the fingerprint of a plan, which tests/test_safety.py is about.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconciler.cli.main import main

CASES = sorted(folder for folder in (Path(__file__).parent / "cases").iterdir() if folder.is_dir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_diff_prints_what_is_expected(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(case)
    expected = Path("expected.txt").read_text(encoding="utf-8")
    code = main(["diff", "--observed", "observed.yaml", "manifest.yaml"])
    out, err = capsys.readouterr()
    shown, count = re.subn(
        r"(?<=\. Fingerprint )[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}$", "FINGERPRINT", out, flags=re.MULTILINE
    )
    assert (shown, err) == (expected, "")
    assert count == code
    assert code == (0 if ": nothing to do." in expected else 1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_observed_is_in_sync_with_itself(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(case)
    assert main(["diff", "--observed", "observed.yaml", "observed.yaml"]) == 0
    assert capsys.readouterr() == (
        "web-1 · netns web-1 · observed.yaml: in sync\n\n1 sandbox: nothing to do.\n",
        "",
    )
