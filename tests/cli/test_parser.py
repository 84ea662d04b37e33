"""The command line: every command is explained with examples that parse, and what is mistyped is suggested."""

from __future__ import annotations

import argparse
import io
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.main import COMMANDS, main, parse, whole_parser
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
    arguments = parse(words)
    chosen = [arguments.command, *(getattr(arguments, name, None) for name in ("action", "host_action", "ca_action"))]
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
        ("--policy x dif m.yaml", 'unknown command "dif"; did you mean "diff"?'),
        ("-vo json m.yaml", 'unknown command "m.yaml"; a command goes before a file, such as `reconciler diff m.yaml`'),
        ("-v m.yaml diff", 'unknown command "m.yaml"; a command goes before a file, such as `reconciler diff m.yaml`'),
        ("--kernel 6.1 --no-color", f"a command is missing; expected one of: {', '.join(COMMANDS)}"),
    ],
)
def test_of_the_whole(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, *words.split()) == f"reconciler: error: {expected}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("diff --adpot m.yaml", 'diff: error: unknown option --adpot; did you mean "--adopt"?'),
        ("--adpot diff m.yaml", 'diff: error: unknown option --adpot; did you mean "--adopt"?'),
        ("--polcy x diff m.yaml", 'diff: error: unknown option --polcy; did you mean "--policy"?'),
        ("-v status diff", "status: error: unknown option -v; `reconciler status --help` lists the options"),
        (
            "--adopt sandbox list",
            "sandbox: error: unknown option --adopt; `reconciler sandbox --help` lists the options",
        ),
        ("-v status", "status: error: unknown option -v; `reconciler status --help` lists the options"),
        ("apply m.yaml --expect", "apply: error: argument --expect: expected one argument"),
        ("diff m.yaml -vo", "diff: error: argument -o/--output: expected one argument"),
        ("-v diff m.yaml n.yaml --policy", "diff: error: argument --policy: expected one argument"),
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
        ("resume web-1 web-2", "resume: error: unexpected word: web-2"),
        (
            "status --state failed,drift",
            'status: error: argument --state: "drift" is no state; did you mean "drifted"?',
        ),
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
    assert parse(words).words[-3:] == ["ip", "--brief", "address"]
    assert parse(["--no-color", *words]) == parse([*words[:2], "--no-color", *words[2:]])


class Line(NamedTuple):
    """A command with its arguments in order, and its options with their values: each of these may stand anywhere."""

    command: list[str]
    options: list[list[str]]


VALUES = st.sampled_from(["a", "diff", "b.yaml", "sandbox", "list", "-", "12"])


@st.composite
def lines(draw: st.DrawFn) -> Line:
    parser = draw(st.sampled_from([each for each in ALL.values() if not each.commands() and "exec" not in each.prog]))
    options = []
    for action in draw(st.lists(st.sampled_from(parser._actions), max_size=5, unique=True)):
        if not action.option_strings or action.dest == "help":
            continue
        name = draw(st.sampled_from(action.option_strings))
        value = str(draw(st.sampled_from(list(action.choices)) if action.choices else VALUES))
        if action.nargs == 0:
            options.append([name])
        elif draw(st.booleans()):
            options.append([name, value])
        else:
            options.append([f"{name}={value}" if name.startswith("--") else f"{name}{value}"])
    # Without what begins with a dash: only a list of words, so that each has its place.
    return Line([*parser.prog.split()[1:], *draw(st.lists(VALUES, max_size=3))], options)


def parsed(words: list[str]) -> object:
    """Return what a line asks for, or that it is wrong."""
    try:
        with redirect_stderr(io.StringIO()):
            return parse(words)
    except SystemExit as error:
        return error.code


@given(lines(), st.randoms(use_true_random=False))
def test_options_stand_anywhere(line: Line, chance: Random) -> None:
    """With the same order among themselves, as the last of two counts."""
    depth = len(next(prog for prog in sorted(ALL, key=len, reverse=True) if is_of(prog, line)).split()) - 1
    plain = [*line.command[:depth], *(word for each in line.options for word in each), *line.command[depth:]]
    places = sorted(chance.randint(0, len(line.command)) for _ in line.options)
    mixed: list[str] = []
    for at in range(len(line.command) + 1):
        mixed += [word for place, each in zip(places, line.options, strict=True) if place == at for word in each]
        mixed += line.command[at : at + 1]
    assert parsed(mixed) == parsed(plain)


@given(lines(), st.randoms(use_true_random=False))
def test_an_option_takes_no_other_word_for_its_value(line: Line, chance: Random) -> None:
    prog = next(prog for prog in sorted(ALL, key=len, reverse=True) if is_of(prog, line))
    halves = [name for name, action in ALL[prog]._option_string_actions.items() if action.nargs != 0]
    if halves:
        options = [word for each in line.options for word in each]
        assert parsed([*options, *line.command, chance.choice(halves)]) == 2


def is_of(prog: str, line: Line) -> bool:
    return " ".join(("reconciler", *line.command)).startswith(f"{prog} ") or prog.split()[1:] == line.command


def test_a_hostile_word_is_made_printable(capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "\x1b[2Jdiff") == 'reconciler: error: unknown command "\\x1b[2Jdiff"; did you mean "diff"?'
    assert isinstance(whole_parser(), argparse.ArgumentParser)
