"""The options of ipvsadm's rules, split into words as popt does it: `-t ADDR`, `-tADDR`, `-t=ADDR`, `--tcp-service=ADDR`.

Which options a line may have is known here; what their values mean is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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


def _table() -> Iterator[tuple[str, _Option]]:
    """Give each option under its short and its long name."""
    for names, slot, takes, lines in (
        ("-A --add-service", "command", "", "-A -a"),
        ("-a --add-server", "command", "", "-A -a"),
        ("-t --tcp-service", "service", "=", "-A -a"),
        ("-u --udp-service", "service", "=", "-A -a"),
        ("--sctp-service", "service", "=", "-A -a"),
        ("-f --fwmark-service", "service", "=", "-A -a"),
        ("-6 --ipv6", "ipv6", "", "-A -a"),
        ("-s --scheduler", "scheduler", "=", "-A"),
        ("-b --sched-flags", "flags", "=", "-A"),
        ("-p --persistent", "persistent", "?", "-A"),
        ("-M --netmask", "netmask", "=", "-A"),
        ("--pe", "engine", "=", "-A"),
        ("-o --ops", "ops", "", "-A"),
        ("-r --real-server", "server", "=", "-a"),
        ("-m --masquerading", "forward", "", "-a"),
        ("-g --gatewaying", "forward", "", "-a"),
        ("-i --ipip", "forward", "", "-a"),
        ("-w --weight", "weight", "=", "-a"),
        ("-x --u-threshold", "upper", "=", "-a"),
        ("-y --l-threshold", "lower", "=", "-a"),
        ("--tun-type", "tun-type", "=", "-a"),
        ("--tun-port", "tun-port", "=", "-a"),
        ("--tun-nocsum", "tun-checksum", "", "-a"),
        ("--tun-csum", "tun-checksum", "", "-a"),
        ("--tun-remcsum", "tun-checksum", "", "-a"),
    ):
        option = _Option(names.split()[0], slot, takes, lines)
        yield from ((name, option) for name in names.split())


_OPTIONS = dict(_table())
_COMMAND = re.compile(r"-[Aa]|--add-service\Z|--add-server\Z")


def read_options(words: list[str], found: Options) -> None:
    """Read the options of a line into `found`, its command first. ValueError where one is wrong: those before it stay."""
    if not _COMMAND.match(words[0]):
        raise ValueError("only -A and -a lines belong in a rules file")
    for option, value in _split_options(words):
        if option.slot in found:
            other = found[option.slot][0]
            both = f"{other} and {option.name} exclude each other"
            raise ValueError(both if other != option.name else f"{option.name} is given twice")
        found[option.slot] = (option.name, value)
        command = found["command"][0]
        if command not in option.lines:
            raise ValueError(f"{option.name} does not belong on an {command} line")


def _split_options(words: list[str]) -> Iterator[tuple[_Option, str]]:
    waiting = words[::-1]
    while waiting:
        word = waiting.pop()
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            yield _take_value(_find_option(name), value if equals else None, waiting)
        elif word.startswith("-") and word != "-":
            yield from _split_letters(word[1:], waiting)
        else:
            raise ValueError(f'unexpected "{word}"')


def _split_letters(letters: str, waiting: list[str]) -> Iterator[tuple[_Option, str]]:
    while letters:
        option, letters = _find_option("-" + letters[0]), letters[1:]
        if option.takes or letters.startswith("="):
            yield _take_value(option, letters.removeprefix("=") if letters else None, waiting)
            return
        yield option, ""


def _find_option(name: str) -> _Option:
    option = _OPTIONS.get(name)
    if option is None:
        known = [each for each in _OPTIONS if each.startswith("--")]
        raise ValueError(f"unknown option {name}" + (f"; {suggest(name, known)}" if name.startswith("--") else ""))
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
