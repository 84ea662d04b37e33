"""The command line: every command is explained with examples that parse, and what is mistyped is suggested."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

import pytest

from reconciler.cli.main import _glued, _parser, main, whole_parser
from reconciler.cli.manual import MANUAL
from reconciler.cli.parser import Parser


def parsers(parser: Parser) -> Iterator[Parser]:
    """Yield a parser, and those of its commands and actions."""
    yield parser
    for each in parser.commands().values():
        yield from parsers(each)


ALL = {each.prog: each for each in parsers(whole_parser())}
EXAMPLES = [(command, text) for command, each in MANUAL.items() for text in each.examples]
each_parser = pytest.mark.parametrize("parser", ALL.values(), ids=ALL)


def message(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the last line of what is on stderr about a command line that is wrong."""
    with pytest.raises(SystemExit) as raised:
        main(words)
    out, err = capsys.readouterr()
    assert (raised.value.code, out) == (2, "")
    return err.splitlines()[-1]


def test_the_manual_has_all_commands_and_no_other() -> None:
    assert list(MANUAL) == list(ALL)
    assert len(ALL) > 20


@each_parser
def test_help_describes_all_of_a_command(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = parser.format_help()
    assert parser.description
    assert [
        action.dest for action in parser._actions if not action.help and action.metavar not in {"COMMAND", "ACTION"}
    ] == []
    for text in (*MANUAL[parser.prog].examples, "examples:", "exit codes:"):
        assert f"  {text}\n" in shown or f"\n{text}\n" in shown
    assert MANUAL[parser.prog].examples
    assert "2" in MANUAL[parser.prog].exits


@each_parser
def test_help_fits_a_narrow_terminal(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    examples = {f"  {text}" for text in MANUAL[parser.prog].examples}
    _, _, ours = parser.format_help().partition("examples:\n")
    assert [line for line in ours.splitlines() if len(line) > 40 and line not in examples] == []


@pytest.mark.parametrize(("command", "text"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_each_example_parses(command: str, text: str) -> None:
    words = shlex.split(
        text.rpartition(" | ")[2] if "| reconciler" in text or "| sudo" in text else text.partition(" | ")[0]
    )
    words = words[words.index("reconciler") + 1 :]
    words = words[: words.index(">")] if ">" in words else words
    arguments = _parser(words).parse_args(_glued(words))
    chosen = [arguments.command, getattr(arguments, "action", None)]
    assert " ".join(filter(None, ["reconciler", *chosen])).startswith(command)


def misspelt(word: str) -> list[str]:
    """Return spellings of a word with a letter too few, a letter twice, and two letters that changed places."""
    at = len(word) // 2
    return [word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], word[:-2] + word[-1] + word[-2]]


@each_parser
def test_what_is_mistyped_is_suggested(parser: Parser, capsys: pytest.CaptureFixture[str]) -> None:
    path = parser.prog.split()[1:]
    known = [*(name for name in parser.commands()), *(name for name in parser.options() if name.startswith("--"))]
    for name in known:
        for other in misspelt(name):
            # argparse itself takes a beginning of an option for the whole.
            if other in known or any(each.startswith(other) for each in known) or (not path and other.startswith("--")):
                continue
            found = message(capsys, *path, other)
            assert f'"{other}"; did you mean "' in found or f"{other}; did you mean " in found or "required" in found
            assert found.startswith(f"{parser.prog}: error: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dif m.yaml", 'unknown command "dif"; did you mean "diff"?'),
        ("Diff m.yaml", 'unknown command "Diff"; did you mean "diff"?'),
        ("plan m.yaml", 'unknown command "plan"; `reconciler diff` shows what `apply` would do'),
        ("m.yaml", 'unknown command "m.yaml"; a command goes before a file, such as `reconciler diff m.yaml`'),
        ("--hepl", 'unknown option --hepl; did you mean "--help"?'),
        ("--no-color diff m.yaml", "--no-color is an option of diff: write it behind that"),
    ],
)
def test_of_the_whole(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, *words.split()) == f"reconciler: error: {expected}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("diff --adpot m.yaml", 'diff: error: unknown option --adpot; did you mean "--adopt"?'),
        ("diff --adpot=1 m.yaml", 'diff: error: unknown option --adpot; did you mean "--adopt"?'),
        ("diff -o yml m.yaml", 'diff: error: -o/--output: "yml" is no choice; did you mean "yaml"?'),
        (
            "diff -o xml m.yaml",
            'diff: error: -o/--output: "xml" is no choice; expected one of: text, json, yaml, shell',
        ),
        ("diff -z m.yaml", "diff: error: unknown option -z; `reconciler diff --help` lists the options"),
        (
            "apply --dry-run m.yaml",
            "apply: error: unknown option --dry-run; `reconciler diff` shows what `apply` would do",
        ),
        ("apply m.yaml --force", "apply: error: unknown option --force; `reconciler apply --help` lists the options"),
        ("status all", "status: error: unexpected word: all"),
        ("sandbox strat a", 'sandbox: error: unknown action "strat"; did you mean "start"?'),
        ("sandbox start --kernel 5 a", 'sandbox start: error: --kernel: "5" is no choice; expected one of: 6.1, 6.12'),
        ("kata-network add-if a", 'kata-network: error: unknown action "add-if"; did you mean "add-iface"?'),
    ],
)
def test_of_a_command(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, *words.split()) == f"reconciler {expected}"


def test_without_a_command_all_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        message(capsys)
        == f"reconciler: error: a command is missing; expected one of: {', '.join(whole_parser().commands())}"
    )


def test_what_is_behind_two_dashes_is_no_option_of_ours() -> None:
    words = ["sandbox", "exec", "a", "--", "ip", "--brief", "address"]
    assert _parser(words).parse_args(words).words[-3:] == ["ip", "--brief", "address"]


def test_a_hostile_word_is_made_printable(capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "\x1b[2Jdiff") == 'reconciler: error: unknown command "\\x1b[2Jdiff"; did you mean "diff"?'
    assert isinstance(whole_parser(), argparse.ArgumentParser)
