"""The parser and the table of commands; each command imports its own needs when it runs."""

from __future__ import annotations

import argparse
import gc
import importlib
import keyword
import os
import sys
from collections.abc import Collection, Sequence
from io import TextIOWrapper
from typing import NoReturn

from reconciler.cli.output import guarded, show_problems, warn
from reconciler.cli.parser import Parser, purpose
from reconciler.cli.terminal import adapt
from reconciler.errors import ManifestError, ReconcilerError, RefusedError
from reconciler.wording import failure

# Command → its purpose. `_module` names its module, which has `configure(parser)` and `run(arguments) -> int`.
COMMANDS = {
    "init": "print a commented manifest of what is there, to begin with",
    "explain": "describe a field of a manifest",
    "validate": "check manifests without touching anything",
    "diff": "show what apply would do",
    "apply": "change sandboxes until they match their manifests",
    "confirm": "keep a change that is undone otherwise",
    "watch": "keep sandboxes as their manifests describe them",
    "doctor": "find what is wrong on this host, at the watcher, and on the way to and in sandboxes",
    "status": "print the state of each sandbox that is watched on this host",
    "history": "print what changed in sandboxes, when, why and by whom",
    "pause": "stop the watcher from changing a sandbox for a while",
    "resume": "end the pause of a sandbox",
    "show": "print what reconciler owns in a sandbox, as a manifest",
    "import": "convert files of other tools, or what is in a sandbox, to a manifest",
    "sandbox": "start, use and stop small virtual machines",
    "agent": "push reconciler's agent into a virtual machine, or print what an image needs to have it",
    "fleet": "keep many hosts as one repository says",
    "kata-network": "add, delete or list single interfaces and routes, as kata-runtime does",
    "kata-ipvs": "change or list IPVS rules one by one or in bulk, as kata-runtime does",
}
_WITHOUT_PATHS = {
    "init",
    "explain",
    "confirm",
    "doctor",
    "sandbox",
    "agent",
    "status",
    "history",
    "pause",
    "resume",
    "import",
    "fleet",
    "kata-network",
    "kata-ipvs",
}
# Changes that wait to be confirmed: see `reconciler.pending`.
PENDING = "/run/reconciler/pending"
# Options that need no command.
_ALONE = {"-h", "--help", "--version"}
# Options whose values begin with a dash. argparse accepts these only in the form `--option=value`.
_DASHED_VALUES = {"kata-ipvs": "--parameters"}


def entry() -> NoReturn:
    """Run the command line as a process of its own, and exit without the interpreter's cleanup.

    That cleanup takes a tenth of the time of a small diff. No driver needs it: the kernel closes what they opened.
    """
    # A command creates many objects and few cycles, and soon exits: collecting cycles takes a third of its time.
    gc.disable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            adapt(stream)
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output closed the pipe: it has seen enough.
        pass
    except OSError as error:
        warn(f"reconciler: cannot write to standard output: {error.strerror}")
        code = 2
    sys.stderr.flush()
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    with guarded():
        return _run(parse(sys.argv[1:] if argv is None else argv))


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return what a command line asks for. Exit with a message if it is wrong."""
    parser = _parser(words)
    arguments = parser.parse_args(_glued(parser.arranged(words)))
    if arguments.command is None:
        parser.error(f"a command is missing; expected one of: {', '.join(COMMANDS)}")
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    # Imported before any output begins.
    command = importlib.import_module(_module(arguments.command))
    try:
        if _waits():
            # Most hosts have no change that waits to be confirmed.
            from reconciler.cli.confirm import undo_overdue

            undo_overdue()
        return int(command.run(arguments))
    except ManifestError as error:
        show_problems(error.problems, color=arguments.color)
        return error.exit_code
    except ReconcilerError as error:
        refused = "refused: " if isinstance(error, RefusedError) else ""
        first, *more = error.lines
        warn(f"reconciler: {refused}{first}", *more)
        return error.exit_code
    except BrokenPipeError:
        return 0
    except OSError as error:
        warn(f"reconciler: {failure(error)}")
        return 2
    except KeyboardInterrupt:
        warn("interrupted; run the same command again to finish, or `reconciler diff` to see what is left")
        return 130


def _waits() -> bool:
    """Return whether a change waits to be confirmed, or is being undone. Only root sees that."""
    try:
        with os.scandir(PENDING) as folders:
            return any(os.listdir(each.path) for each in folders)
    except OSError:
        # What else is wrong there, the command itself reports when it takes the lock of a sandbox.
        return False


def _glued(words: list[str]) -> list[str]:
    option = _DASHED_VALUES.get(words[0]) if words else None
    if option not in words[:-1]:
        return words
    at = words.index(option)
    return [*words[:at], f"{option}={words[at + 1]}", *words[at + 2 :]]


def whole_parser() -> Parser:
    """Return the parser with the options of all commands, for what is made of it: completions and the manual."""
    return _parser_of(COMMANDS, configured=COMMANDS)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print the version, and exit."""
        from reconciler.version import installed_version

        print(f"reconciler {installed_version()}")
        parser.exit()


def _parser(words: Sequence[str]) -> Parser:
    """Return the parser for a command line."""
    # Each parser takes time, and a line that begins with a command needs no other.
    if words and words[0] in COMMANDS:
        return _parser_of(words[:1], configured=words)
    # Where options are and no command, only all commands show which word is none.
    is_lost = words and words[0].startswith("-") and words[0] not in _ALONE and COMMANDS.keys().isdisjoint(words)
    return _parser_of(COMMANDS, configured=COMMANDS if is_lost else words)


def _parser_of(names: Collection[str], configured: Collection[str]) -> Parser:
    """Return a parser with commands. Only some of them have their options, as these have to be imported."""
    parser = Parser(
        prog="reconciler",
        description="Declarative networking for secure containers.",
        epilog="Options of a command may stand before it as well, and between its arguments.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in names:
        command = commands.add_parser(name, **purpose(COMMANDS[name]))
        if name in configured:
            _configure(command, name, configured)
    return parser


def _configure(command: Parser, name: str, configured: Collection[str]) -> None:
    if name not in _WITHOUT_PATHS:
        command.add_argument(
            "paths",
            # The watcher of a fleet has the folder of its agent instead.
            nargs="*" if name == "watch" else "+",
            metavar="PATH",
            help="a manifest, a folder (searched for *.yaml, *.yml, *.json), or - for standard input",
        )
        from reconciler.cli.authority import add_policy

        add_policy(command)
    module = importlib.import_module(_module(name))
    if name == "fleet" and configured is not COMMANDS:
        # It has many actions, and the agent of a host should need little memory.
        module.configure_some(command, configured)
    else:
        module.configure(command)
    for each in command.leaves():
        each.add_argument("--no-color", dest="color", action="store_false", help="print without colour")


def _module(command: str) -> str:
    """Return the module of a command: its name, changed where Python does not allow it as the name of a module."""
    name = command.replace("-", "_")
    return f"reconciler.cli.{name}_" if keyword.iskeyword(name) else f"reconciler.cli.{name}"
