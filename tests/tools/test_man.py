"""The manual page is right to those that read it, and has every command, option and exit code."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.main import whole_parser
from reconciler.cli.manual import MANUAL
from reconciler.cli.parser import Parser
from tools import generate

needs = {
    name: pytest.mark.skipif(not shutil.which(name), reason=f"`make shells` installs {name}")
    for name in ("man", "mandoc")
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        generate.main(folder)
    return folder / "man/man1/reconciler.1"


def run(*words: str) -> str:
    """Run a command. Return all that it prints, also what it has to object."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "1000", "MAN_KEEP_FORMATTING": ""}
    ran = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    return ran.stderr + ran.stdout


def parsers(parser: Parser) -> Iterator[Parser]:
    yield parser
    for each in parser.commands().values():
        yield from parsers(each)


@needs["mandoc"]
def test_mandoc_has_nothing_to_object(page: Path) -> None:
    assert run("mandoc", "-T", "lint", str(page)) == ""


@needs["man"]
@pytest.mark.parametrize("encoding", ["UTF-8", "ascii"])
def test_man_has_no_warnings(page: Path, encoding: str) -> None:
    # What man objects comes before the page.
    assert run("man", "--warnings", "-E", encoding, "-l", str(page)).startswith("RECONCILER(1)")


@needs["mandoc"]
def test_it_has_all_that_the_help_has(page: Path) -> None:
    shown = run("mandoc", "-T", "ascii", "-O", "width=1000", str(page))
    words = " ".join(re.sub(".\b", "", shown).split())
    for each in parsers(whole_parser()):
        expected = [str(each.description), *MANUAL[each.prog].examples, *MANUAL[each.prog].exits.values()]
        expected += [option for option in each.options() if option not in {"-h", "--help"}]
        assert [text for text in expected if " ".join(text.split()).rstrip(".").lower() not in words.lower()] == []


def test_it_has_a_date_that_the_build_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.splitlines()[0].startswith('.TH RECONCILER 1 2023-11-14 "reconciler ')
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    generate.main(tmp_path)
    assert (tmp_path / "man/man1/reconciler.1").read_text(encoding="utf-8") == text
