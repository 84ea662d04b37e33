"""`make lint` finds possessive quantifiers and atomic groups wherever a pattern is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.check_regexes import check, main

POSSESSIVE, ATOMIC = "a possessive quantifier", "an atomic group"


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ('import re\nre.compile(r"a*+b")', 2, f"{POSSESSIVE} in a*+b"),
        ('re.match("a++", text)', 1, f"{POSSESSIVE} in a++"),
        ('re.sub(r"a?+", "", text)', 1, f"{POSSESSIVE} in a?+"),
        ('re.search(r"(?:[^x]|b{1,2}+)*", text)', 1, f"{POSSESSIVE} in (?:[^x]|b{{1,2}}+)*"),
        ('re.split(r"(?=(?>a))", text)', 1, f"{ATOMIC} in (?=(?>a))"),
        ('re.compile(\n    r"a*"\n    r"+b"\n)', 1, f"{POSSESSIVE} in a*+b"),
        ('re.compile(rb"(?>\\xff)")', 1, f"{ATOMIC} in (?>\\xff)"),
        ('re.compile(rf"({word})*+")', 1, f"{POSSESSIVE} in (x)*+"),
        ('WORD = r"\\w++"\nre.compile(rf"({WORD}) " + r"!")', 2, f"{POSSESSIVE} in (\\w++) !"),
        ('re.compile("(")', 1, "not a regular expression (missing ), unterminated subpattern at position 0) in ("),
    ],
)
def test_what_is_found(source: str, line: int, message: str) -> None:
    assert list(check(source)) == [(line, message)]


@pytest.mark.parametrize(
    "source",
    [
        r're.compile(r"a*[+]\++x\?+?(?:a)+")',
        r're.compile("[*+]{1,2}[(?>]")',
        're.escape("a*+")',
        're.compile(rf"[{first}-{last}]{{1,{most}}}")',
        'pattern.match("a++")',
        '"a++"',
    ],
)
def test_what_is_allowed(source: str) -> None:
    assert list(check(source)) == []


def test_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "right.py").write_text('re.compile("a")')
    assert main([str(tmp_path)]) == 0
    (tmp_path / "below" / "wrong.py").write_text('\nre.compile("a*+")')
    assert main([str(tmp_path)]) == 1
    expected = f"{tmp_path}/below/wrong.py:2: {POSSESSIVE} in a*+; Python 3.11.2 may match it wrongly\n"
    assert capsys.readouterr().out == expected
