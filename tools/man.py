"""The manual page reconciler(1), made of the parser of the command line: the same words as `--help`, as man(7)."""

from __future__ import annotations

import argparse
import re
import textwrap
import time
from collections.abc import Iterator

from reconciler.cli.main import whole_parser
from reconciler.cli.manual import MANUAL, Exits
from reconciler.cli.parser import Parser
from reconciler.model.policy import POLICY_FILE
from reconciler.version import installed_version

_FILES = {
    POLICY_FILE: "what manifests may name on this host",
    "/run/netns": "network namespaces that have a name",
    "/run/reconciler": "records of devices, locks, and small virtual machines",
}


def write(moment: float) -> str:
    """Return the page, with the date of a moment in Unix seconds."""
    date = time.strftime("%Y-%m-%d", time.gmtime(moment))
    return "\n".join(
        (f'.TH RECONCILER 1 {date} "reconciler {installed_version()}" "User Commands"', *_page(whole_parser()), "")
    )


def _page(parser: Parser) -> Iterator[str]:
    description = str(parser.description)
    yield from (".SH NAME", f"reconciler \\- {_text(description[0].lower() + description[1:].rstrip('.'))}")
    yield from (".SH SYNOPSIS", ".B reconciler", ".I COMMAND", r"[\fIOPTION\fR ...] [\fIARGUMENT\fR ...]")
    yield ".SH DESCRIPTION"
    for line in _DESCRIPTION.strip().splitlines():
        yield from _prose(line)
    yield ".SH OPTIONS"
    yield from _arguments(parser)
    yield ".SH COMMANDS"
    for each in parser.commands().values():
        yield from _command(each)
    yield ".SH EXIT STATUS"
    yield from _exits(MANUAL[parser.prog].exits)
    # A section begins with a paragraph.
    _, *examples = _examples(MANUAL[parser.prog].examples)
    yield from (".SH EXAMPLES", *examples)
    yield ".SH FILES"
    for name, purpose in _FILES.items():
        yield from (".TP", f".I {_text(name)}", *_prose(purpose))
    yield ".SH SEE ALSO"
    yield from (".BR ip (8),", ".BR ipvsadm (8),", ".BR network_namespaces (7)")


# The first one first: the others have it.
_ESCAPES = {"\\": r"\e", "-": r"\-", "…": "...", "'": r"\(aq", "`": r"\(ga"}
_DESCRIPTION = """
reconciler configures the network of secure containers: of virtual machines, or network namespaces in their place.
A manifest of YAML describes the interfaces, routes and IPVS rules of one sandbox.
reconciler reads what the kernel has, shows the difference as commands, applies the fewest operations that remove it,
and verifies the result.
It changes only what it created.
Options of a command may stand before it as well, and between its arguments.
"""


def _command(parser: Parser) -> Iterator[str]:
    """Yield a command, and its actions as commands of their own."""
    yield f".SS {_text(parser.prog)}"
    yield from _prose(str(parser.description))
    yield from (".PP", f".B {_text(_usage(parser))}")
    yield from _arguments(parser)
    yield from (".PP", "Examples:")
    yield from _examples(MANUAL[parser.prog].examples)
    yield from (".PP", "Exit status:")
    yield from _exits(MANUAL[parser.prog].exits)
    for each in parser.commands().values():
        yield from _command(each)


def _usage(parser: Parser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage: ").split())


def _arguments(parser: Parser) -> Iterator[str]:
    """Yield the arguments and options. A command that has actions has these for its argument."""
    for action in parser._actions:  # noqa: SLF001 (argparse has no other list of them)
        if action.dest != "help" and not parser.commands().keys() & (action.choices or ()):
            help_ = str(action.help) % {**vars(action), "prog": parser.prog}
            yield from (".TP", _name(action), *_prose(help_))


def _name(action: argparse.Action) -> str:
    """Return the line that names an argument: an option in bold, what it takes in italics."""
    value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else "")
    taken = rf"\fI{_text(str(value))}\fR" if value and action.nargs != 0 else ""
    options = ", ".join(rf"\fB{_text(each)}\fR" for each in action.option_strings)
    return " ".join(filter(None, (options, taken)))


def _examples(examples: dict[str, str]) -> Iterator[str]:
    for command, purpose in examples.items():
        sentence = f"{purpose[0].upper()}{purpose[1:]}"
        yield from (".PP", *_prose(sentence if sentence.endswith(("?", ".")) else f"{sentence}:"))
        yield from (".PP", ".RS 4", ".EX", _text(command), ".EE", ".RE")


def _exits(exits: Exits) -> Iterator[str]:
    for code, meaning in exits.items():
        yield from (".TP", f".B {code}", *_prose(meaning))


def _prose(text: str) -> Iterator[str]:
    """Yield text as lines that are short enough for those who read the source."""
    yield from map(_text, textwrap.wrap(text, 70, break_on_hyphens=False))


def _text(text: str) -> str:
    """Return a line as roff reads it back: with hyphens that can be pasted, and never as a request."""
    for each, escape in _ESCAPES.items():
        text = text.replace(each, escape)
    return re.sub(r"^(?=[.'])", r"\\&", text)
