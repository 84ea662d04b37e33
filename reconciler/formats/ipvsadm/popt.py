"""The options of ipvsadm, split into words as popt does it: `-t ADDR`, `-tADDR`, `-t=ADDR`, `--tcp-service=ADDR`.

This module knows which options a line may have, but not what their values mean. Rules have fewer options than commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from reconciler.model.ipvs import PERSISTENT_DEFAULT
from reconciler.values import NamedTuple
from reconciler.wording import suggest

# For each slot that a line fills: the name of its option, and the value.
Options = dict[str, tuple[str, str]]


class _Option(NamedTuple):
    """An option, under the name that messages use. Options of the same slot exclude each other.

    `takes`: "" no value, "=" a value, "?" an optional value. `lines`: the commands that may have it.
    """

    name: str
    slot: str
    takes: str
    lines: str


Known = Mapping[str, _Option]
# The commands, and those that need a service.
COMMANDS = "-A -E -D -C -a -e -d -L -S"
_OF_A_SERVICE = "-A -E -D -a -e -d -L"


def _table() -> Iterator[tuple[str, _Option]]:
    """Yield each option under its short and its long name."""
    for names, slot, takes, lines in (
        ("-A --add-service", "command", "", COMMANDS),
        ("-E --edit-service", "command", "", COMMANDS),
        ("-D --delete-service", "command", "", COMMANDS),
        ("-C --clear", "command", "", COMMANDS),
        ("-a --add-server", "command", "", COMMANDS),
        ("-e --edit-server", "command", "", COMMANDS),
        ("-d --delete-server", "command", "", COMMANDS),
        ("-L -l --list", "command", "", COMMANDS),
        ("-S --save", "command", "", COMMANDS),
        ("-n --numeric", "numeric", "", "-L -S"),
        ("-t --tcp-service", "service", "=", _OF_A_SERVICE),
        ("-u --udp-service", "service", "=", _OF_A_SERVICE),
        ("--sctp-service", "service", "=", _OF_A_SERVICE),
        ("-f --fwmark-service", "service", "=", _OF_A_SERVICE),
        ("-6 --ipv6", "ipv6", "", _OF_A_SERVICE),
        ("-s --scheduler", "scheduler", "=", "-A -E"),
        ("-b --sched-flags", "flags", "=", "-A -E"),
        ("-p --persistent", "persistent", "?", "-A -E"),
        ("-M --netmask", "netmask", "=", "-A -E"),
        ("--pe", "engine", "=", "-A -E"),
        ("-o --ops", "ops", "", "-A -E"),
        ("-r --real-server", "server", "=", "-a -e -d"),
        ("-m --masquerading", "forward", "", "-a -e"),
        ("-g --gatewaying", "forward", "", "-a -e"),
        ("-i --ipip", "forward", "", "-a -e"),
        ("-w --weight", "weight", "=", "-a -e"),
        ("-x --u-threshold", "upper", "=", "-a -e"),
        ("-y --l-threshold", "lower", "=", "-a -e"),
        ("--tun-type", "tun-type", "=", "-a -e"),
        ("--tun-port", "tun-port", "=", "-a -e"),
        ("--tun-nocsum", "tun-checksum", "", "-a -e"),
        ("--tun-csum", "tun-checksum", "", "-a -e"),
        ("--tun-remcsum", "tun-checksum", "", "-a -e"),
    ):
        option = _Option(names.split()[0], slot, takes, lines)
        yield from ((name, option) for name in names.split())


_OPTIONS = dict(_table())
# The options of the lines that ipvsadm -S writes.
_RULE_OPTIONS = {
    name: option
    for name, option in _OPTIONS.items()
    if name.lower() in {"-a", "--add-service", "--add-server"}
    or (option.slot != "command" and {"-A", "-a"} & set(option.lines.split()))
}
_COMMAND = re.compile(r"-[Aa]|--add-service\Z|--add-server\Z")
# Commands of ipvsadm that are not supported, and why.
_UNSUPPORTED = {
    **dict.fromkeys(("-R", "--restore"), "use `ipvsadm --restore FILE` to read rules"),
    **dict.fromkeys(("-Z", "--zero"), "reconciler does not manage counters"),
    **dict.fromkeys(
        ("--start-daemon", "--stop-daemon"), "reconciler does not manage the synchronization of connections"
    ),
}


def read_options(words: list[str], found: Options) -> None:
    """Read the options of a rule into `found`, its command first. ValueError at a wrong one; `found` keeps the rest."""
    if not _COMMAND.match(words[0]):
        raise ValueError("only -A and -a lines belong in a rules file")
    _read(words, found, _RULE_OPTIONS)


def read_command(words: list[str]) -> Options:
    """Read the options of a command line, its command first. ValueError at a wrong one."""
    for word in words:
        if word in _UNSUPPORTED:
            raise ValueError(f"{word} is not supported: {_UNSUPPORTED[word]}")
    found: Options = {}
    _read(words, found, _OPTIONS)
    if not found:
        raise ValueError(f"nothing to do; expected one of {COMMANDS} --set, and its options")
    return found


def _read(words: list[str], found: Options, known: Known) -> None:
    for option, value in _split_options(words, known):
        if option.slot in found:
            other = found[option.slot][0]
            both = f"{other} and {option.name} exclude each other"
            raise ValueError(both if other != option.name else f"{option.name} is given twice")
        if not found and option.slot != "command":
            raise ValueError(f"{option.name} needs a command before it: one of {COMMANDS} --set")
        found[option.slot] = (option.name, value)
        command = found["command"][0]
        if command not in option.lines:
            raise ValueError(f"{option.name} is not possible on an {command} line")


def _split_options(words: list[str], known: Known) -> Iterator[tuple[_Option, str]]:
    waiting = words[::-1]
    while waiting:
        word = waiting.pop()
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            yield _take_value(_find_option(name, known), value if equals else None, waiting)
        elif word.startswith("-") and word != "-":
            yield from _split_letters(word[1:], waiting, known)
        else:
            raise ValueError(f'unexpected "{word}"')


def _split_letters(letters: str, waiting: list[str], known: Known) -> Iterator[tuple[_Option, str]]:
    while letters:
        option, letters = _find_option("-" + letters[0], known), letters[1:]
        if option.takes or letters.startswith("="):
            yield _take_value(option, letters.removeprefix("=") if letters else None, waiting)
            return
        yield option, ""


def _find_option(name: str, known: Known) -> _Option:
    option = known.get(name)
    if option is None:
        long = [each for each in known if each.startswith("--")]
        raise ValueError(f"unknown option {name}" + (f"; {suggest(name, long)}" if name.startswith("--") else ""))
    return option


def _take_value(option: _Option, glued: str | None, waiting: list[str]) -> tuple[_Option, str]:
    """Return an option with its value: the one glued to it, or the next of the waiting words (last word first)."""
    if glued is not None:
        if not option.takes:
            raise ValueError(f"{option.name} takes no value")
        return option, glued
    if option.takes and waiting and (option.takes == "=" or not waiting[-1].startswith("-")):
        return option, waiting.pop()
    if option.takes == "=":
        raise ValueError(f"{option.name} needs a value")
    return option, str(PERSISTENT_DEFAULT) if option.takes else ""
