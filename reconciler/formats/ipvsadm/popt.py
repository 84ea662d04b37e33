"""The options of ipvsadm, split into words as popt does it: `-t ADDR`, `-tADDR`, `-t=ADDR`, `--tcp-service=ADDR`.

Which options a line may have is known here; what their values mean is not. Rules have fewer of them than commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from reconciler.wording import suggest

# Of each slot that a line fills: the name of its option, and the value.
Options = dict[str, tuple[str, str]]

# What `-p` means without a value: IP_VS_TEMPLATE_TIMEOUT.
PERSISTENT_DEFAULT = "360"


class _Option(NamedTuple):
    """An option under the name that messages have for it. Options of the same slot exclude each other.

    `takes`: "" no value, "=" a value, "?" a value if one follows. `lines`: the commands that have it.
    """

    name: str
    slot: str
    takes: str
    lines: str


Known = Mapping[str, _Option]
# What a command line can begin with, and those of them that say a service.
COMMANDS = "-A -E -D -C -a -e -d -L -S"
_ABOUT_ONE = "-A -E -D -a -e -d -L"


def _table() -> Iterator[tuple[str, _Option]]:
    """Give each option under its short and its long name."""
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
        ("-t --tcp-service", "service", "=", _ABOUT_ONE),
        ("-u --udp-service", "service", "=", _ABOUT_ONE),
        ("--sctp-service", "service", "=", _ABOUT_ONE),
        ("-f --fwmark-service", "service", "=", _ABOUT_ONE),
        ("-6 --ipv6", "ipv6", "", _ABOUT_ONE),
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
# Those of rules: the lines that ipvsadm -S writes.
_RULE_OPTIONS = {
    name: option
    for name, option in _OPTIONS.items()
    if name.lower() in {"-a", "--add-service", "--add-server"}
    or (option.slot != "command" and {"-A", "-a"} & set(option.lines.split()))
}
_COMMAND = re.compile(r"-[Aa]|--add-service\Z|--add-server\Z")
# Commands of ipvsadm that are about what is not looked after here.
_NOT_TAKEN = {
    **dict.fromkeys(("-R", "--restore"), "rules are read by `ipvsadm --restore FILE`"),
    **dict.fromkeys(("-Z", "--zero"), "counters are not looked after"),
    **dict.fromkeys(("--start-daemon", "--stop-daemon"), "the synchronization of connections is not looked after"),
}


def read_options(words: list[str], found: Options) -> None:
    """Read the options of a rule into `found`, its command first. ValueError where one is wrong: those before it stay."""
    if not _COMMAND.match(words[0]):
        raise ValueError("only -A and -a lines belong in a rules file")
    _read(words, found, _RULE_OPTIONS)


def read_command(words: list[str]) -> Options:
    """Read the options of a command line, its command first. ValueError where one is wrong."""
    for word in words:
        if word in _NOT_TAKEN:
            raise ValueError(f"{word} is not possible here: {_NOT_TAKEN[word]}")
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
            raise ValueError(f"{option.name} comes after a command: one of {COMMANDS} --set")
        found[option.slot] = (option.name, value)
        command = found["command"][0]
        if command not in option.lines:
            raise ValueError(f"{option.name} does not belong on an {command} line")


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
    """Give an option with the value that is glued to it, or that waits (last word first)."""
    if glued is not None:
        if not option.takes:
            raise ValueError(f"{option.name} takes no value")
        return option, glued
    if option.takes and waiting and (option.takes == "=" or not waiting[-1].startswith("-")):
        return option, waiting.pop()
    if option.takes == "=":
        raise ValueError(f"{option.name} lacks its value")
    return option, PERSISTENT_DEFAULT if option.takes else ""
