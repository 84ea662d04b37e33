"""The parser of the command line: its messages suggest what was meant, and its help has examples and exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from reconciler import wording
from reconciler.cli.terminal import help_width
from reconciler.wording import nearest, plural, printable, shorten

if TYPE_CHECKING:
    from reconciler.watch.page.address import PageAddress

# Our words are English, and so are those of argparse beside them. To look for others takes a small command 3 ms.
vars(argparse)["_"] = str
# How a word ends that is a file, not a command.
_MANIFESTS = (".yaml", ".yml", ".json")
_N = TypeVar("_N")
_T = TypeVar("_T")
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


def add_output(parser: argparse.ArgumentParser, *forms: str, words: str) -> None:
    """Add the option for the form of the output. The first of the forms is the default; `words` explain them."""
    parser.add_argument("-o", "--output", choices=forms, default=forms[0], help=f"{words} (default: {forms[0]})")


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

    def _get_formatter(self) -> argparse.HelpFormatter:
        """Return what formats help. argparse asks for it with each option, and by default imports shutil for its width.

        That module imports all kinds of compression, which takes a small command 4 ms.
        """
        return argparse.HelpFormatter(self.prog, width=help_width())

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
        known = [each for each in self.options() if each.startswith("--") == name.startswith("--")]
        return f"unknown option {name}; {_hint(name, known, f'`{self.prog} --help` lists the options')}"

    def arranged(self, words: Sequence[str]) -> list[str]:
        """Return words in the order in which argparse reads all of them: the command, its options, other words.

        So an option may stand anywhere: before the command, behind it, or between its arguments. The words of a program
        that a command runs stay as they are. If an unknown word stands before the command, it comes where the parser
        names it.
        """
        commands = self.commands()
        if not commands:
            return self._with_options_first(words)
        for at, word in enumerate(words):
            if word in commands and commands[word].extent(words[:at]) == at:
                return [word, *commands[word].arranged([*words[:at], *words[at + 1 :]])]
        if words and words[0] in self.options():
            # An option of the whole, such as --version.
            return list(words)
        known = self.extent(words)
        wrong = words[known : known + 1]
        named = next((at for at, word in enumerate(words) if word in commands and at >= known), None)
        if named is not None and (named == known or self._is_unknown(wrong)):
            return [words[named], *words[:named], *words[named + 1 :]]
        # Options in front of it do not hide which word is no command.
        return list(words[known:])

    def _with_options_first(self, words: Sequence[str]) -> list[str]:
        if any(action.nargs == argparse.REMAINDER for action in self._actions):
            return list(words)
        options: list[str] = []
        others: list[str] = []
        while words and words[0] != "--":
            count = self._words_of(words[0], words[1:]) or int(self._is_unknown(words[:1]))
            if count > len(words):
                # Half of an option: no other word is its value.
                break
            (options if count else others).extend(words[: count or 1])
            words = words[count or 1 :]
        return [*options, *others, *words]

    def extent(self, words: Sequence[str]) -> int:
        """Return how many words at the beginning are options with their values. With half of an option, it is more."""
        extent = 0
        while extent < len(words) and (count := self._words_of(words[extent], words[extent + 1 :])):
            extent += count
        return extent

    def _words_of(self, word: str, rest: Sequence[str]) -> int:
        """Return how many words an option is with its value or values; 0 if a word is no option of this command.

        `rest`: the words behind it. Some options have as many values as there are words up to the next option.
        """
        known = self.known()
        if not word.startswith("--"):
            for at, letter in enumerate(word[1:], 1):
                action = known.get(f"-{letter}") if word.startswith("-") else None
                if action is None or action.nargs != 0:
                    return 0 if action is None else 1 + (at + 1 == len(word))
            return int(len(word) > 1)
        name, glued, _ = word.partition("=")
        # argparse takes a beginning of an option for the whole.
        meant = [name] if name in known else [each for each in known if each.startswith(name)] * (name != "--")
        takes = bool(meant) and known[meant[0]].nargs != 0
        if takes and not glued and known[meant[0]].nargs == argparse.ONE_OR_MORE:
            return 1 + max(1, sum(1 for _ in takewhile(lambda each: not each.startswith("-"), rest)))
        return int(bool(meant)) + (takes and not glued)

    def known(self) -> dict[str, argparse.Action]:
        """Return the options of this command and of its actions."""
        found = dict(self._option_string_actions)
        for each in self.commands().values():
            found = each.known() | found
        return found

    @staticmethod
    def _is_unknown(words: Sequence[str]) -> bool:
        """Return whether a word that is no option of ours was meant as one."""
        return any(word.startswith("-") and word not in {"-", "--"} for word in words)

    def leaves(self) -> Iterator[Parser]:
        """Yield the parsers of what can be run: of the actions of a command, or of the command itself."""
        commands = self.commands()
        if not commands:
            yield self
        for each in commands.values():
            yield from each.leaves()

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


def checked(read: Callable[[str], _T], text: str) -> _T:
    """Return what `read` makes of an option. ArgumentTypeError with the words of its ValueError."""
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """Return a time such as 90s in seconds. ArgumentTypeError if it is none."""
    return checked(wording.seconds, text)


def address_of(text: str) -> tuple[str, int]:
    """Return the host and port of an option. ArgumentTypeError if it is none."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if ":" in text else "127.0.0.1"
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f'"{text}" is not HOST:PORT or PORT')
    return host, int(port)


def page_address(text: str) -> PageAddress:
    """Return where a page is served by an option. ArgumentTypeError if it says something else."""
    from reconciler.watch.page.address import PageAddress

    if not text.startswith("unix:"):
        return PageAddress(*address_of(text))
    if not text.startswith("unix:/"):
        raise argparse.ArgumentTypeError(f'"{text}": the path of the socket has to begin with /')
    return PageAddress(path=text.removeprefix("unix:"))
