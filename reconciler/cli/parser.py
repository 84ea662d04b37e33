"""The parser of the command line: its messages suggest what was meant, and its help has examples and exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from reconciler.wording import nearest, plural, printable, shorten

# How a word ends that is a file, not a command.
_MANIFESTS = (".yaml", ".yml", ".json")
_N = TypeVar("_N")
# What people look for by the word of another tool → the command that does it.
_ELSEWHERE = {
    "--dry-run": "`reconciler diff` shows what `apply` would do",
    "--check": "`reconciler diff` shows what `apply` would do, and its exit code is 1 if that is anything",
    "check": "`reconciler validate` checks manifests",
    "delete": "remove the objects from the manifest, then `reconciler apply`",
    "export": "`reconciler show` prints what reconciler owns in a sandbox, as a manifest",
    "get": "`reconciler show` prints what reconciler owns in a sandbox, as a manifest",
    "help": "`reconciler --help` and `reconciler COMMAND --help` print help",
    "lint": "`reconciler validate` checks manifests",
    "list": "`reconciler status` lists sandboxes that are watched, `reconciler sandbox list` small virtual machines",
    "plan": "`reconciler diff` shows what `apply` would do",
    "start": "`reconciler sandbox start` starts a small virtual machine, `reconciler watch` a watcher",
    "stop": "`reconciler sandbox stop` stops a small virtual machine",
}


def purpose(words: str) -> dict[str, Any]:
    """Return what a command or action is for, as the arguments of its parser."""
    return {"help": words, "description": f"{words[0].upper()}{words[1:]}."}


class Parser(argparse.ArgumentParser):
    """A parser of ours. argparse makes the parsers of commands and actions of the same class."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: _N | None = None
    ) -> tuple[_N | argparse.Namespace, list[str]]:
        """Parse words. Exit with a suggestion if there is an unknown one: here, the command that it is for is known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown))
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Exit with a suggestion if a value is none of the choices of its option, or no command."""
        if action.choices is None or value in action.choices:
            return
        hint = _hint(str(value), [str(each) for each in action.choices])
        if action.option_strings:
            self.error(f'{"/".join(action.option_strings)}: "{value}" is no choice; {hint}')
        if str(value).endswith(_MANIFESTS):
            hint = f"a command goes before a file, such as `reconciler diff {value}`"
        self.error(f'unknown {str(action.metavar).lower()} "{value}"; {hint}')

    def _unknown(self, words: Sequence[str]) -> str:
        """Return the message about words that the parser does not know."""
        name = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        if name is None:
            return f"unexpected {plural('word', len(words))}: {' '.join(words)}"
        for command, other in self.commands().items():
            if name in other.options():
                return f"{name} is an option of {command}: write it behind that"
        known = [each for each in self.options() if each.startswith("--") == name.startswith("--")]
        return f"unknown option {name}; {_hint(name, known, f'`{self.prog} --help` lists the options')}"

    def options(self) -> list[str]:
        """Return the options, in all their forms."""
        return list(self._option_string_actions)

    def commands(self) -> dict[str, Parser]:
        """Return the parsers of the commands or actions, by their names."""
        choices = [each.choices for each in self._actions if isinstance(each.choices, dict)]
        return {name: each for found in choices for name, each in found.items() if isinstance(each, Parser)}

    def error(self, message: str) -> NoReturn:
        """Exit with a message that repeats words of the user."""
        super().error(printable(shorten(message)))

    def format_help(self) -> str:
        """Return the help: with examples and exit codes, which nothing but it needs."""
        from reconciler.cli.manual import MANUAL

        return f"{super().format_help()}\n{MANUAL[self.prog].render()}"


def _hint(name: str, known: Sequence[str], others: str = "") -> str:
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    if close := nearest(name, known):
        return f'did you mean "{close}"?'
    return others or f"expected one of: {', '.join(known)}"
