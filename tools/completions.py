"""Completions of bash, zsh and fish, made of the parser of the command line by shtab.

They are files that a shell reads by itself, so completing starts no process of ours. Paths and names of this host are
completed by the shell; fields of `explain` are in the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import shtab

from reconciler.cli.main import whole_parser
from reconciler.cli.parser import Parser
from reconciler.manifest.fields import every

# Shell → the file of its completions, below a folder. The names are those that the shells look for.
FILES = {"bash": "bash/reconciler", "zsh": "zsh/_reconciler", "fish": "fish/reconciler.fish"}
_NETNS, _MACHINES = "/run/netns", "/run/reconciler/sandboxes"
# What an argument is called in the help → what completes it.
_BY_METAVAR = {"PATH": "file", "FILE": "file", "FILE|-": "file", "FIELD": "fields"}
# The names of machines, by the commands that take them.
_SHARED = {"color", "output", "policy", "verbose"}
_OF_MACHINES = {"reconciler sandbox exec", "reconciler sandbox stop"}


def write(shell: str) -> str:
    """Return the completions of a shell."""
    parser = whole_parser()
    _add_shared(parser)
    for each in _parsers(parser):
        for action in each._actions:  # noqa: SLF001 (argparse has no other list of them)
            if kind := _kind(each.prog, str(action.metavar), action.option_strings):
                action.complete = _COMPLETERS[kind]  # type: ignore[attr-defined]
    return shtab.complete(parser, shell=shell, preamble=_PREAMBLES[shell]())


def _add_shared(parser: Parser) -> None:
    """Add the options that most commands have to those of the whole: they may stand before the command."""
    for action in parser.commands()["diff"]._actions:  # noqa: SLF001
        if action.dest in _SHARED:
            parser._add_action(action)  # noqa: SLF001


def _parsers(parser: Parser) -> Iterator[Parser]:
    yield parser
    for each in parser.commands().values():
        yield from _parsers(each)


def _kind(command: str, metavar: str, options: Sequence[str]) -> str | None:
    if "--netns" in options:
        return "netns"
    if "--vm" in options or (metavar == "NAME" and command in _OF_MACHINES):
        return "machine"
    return _BY_METAVAR.get(metavar)


_COMPLETERS: dict[str, Mapping[str, object]] = {
    "file": shtab.FILE,
    "fields": {"bash": "_reconciler_fields", "zsh": "_reconciler_fields", "fish": "(_reconciler_fields)"},
    "netns": {
        "bash": "_reconciler_netns",
        "zsh": f"_files -W {_NETNS}",
        "fish": f"(command ls {_NETNS} 2>/dev/null)",
    },
    "machine": {
        "bash": "_reconciler_machines",
        "zsh": f"_files -W {_MACHINES}",
        "fish": f"(command ls {_MACHINES} 2>/dev/null)",
    },
}


def _fields() -> list[str]:
    return [each.path.replace("[]", "") for each in every()]


def _bash() -> str:
    # Names of files are never expanded by the shell, as words of `compgen -W` would be.
    return f"""\
_reconciler_netns() {{ (cd {_NETNS} 2>/dev/null && compgen -f -- "$1"); }}
_reconciler_machines() {{ (cd {_MACHINES} 2>/dev/null && compgen -f -- "$1"); }}
_reconciler_fields() {{ compgen -W '{" ".join(_fields())}' -- "$1"; }}
"""


def _zsh() -> str:
    return f"_reconciler_fields() {{ local fields=({' '.join(_fields())}); compadd -a fields }}\n"


def _fish() -> str:
    lines = " \\\n    ".join(_fields())
    return f"function _reconciler_fields\n  printf '%s\\n' {lines}\nend\n"


_PREAMBLES = {"bash": _bash, "zsh": _zsh, "fish": _fish}
