"""The words behind a keyword: addresses, ports, numbers, choices."""

from __future__ import annotations

from reconciler.formats.ipvsadm.read import to_number
from reconciler.formats.keepalived.statements import Statement
from reconciler.model.address import is_ipv6, parse_address
from reconciler.model.ipvs import PORT_MAX
from reconciler.wording import suggest

INET, INET6 = "inet", "inet6"


def family_of(address: str) -> str:
    """Return `inet` or `inet6`."""
    return INET6 if is_ipv6(address) else INET


def parameter(statement: Statement, index: int = 1) -> str:
    """Return a word of a statement. ValueError if it is missing."""
    if len(statement.words) <= index:
        raise ValueError(f"{statement} needs a value")
    return statement.words[index]


def choice(statement: Statement, known: tuple[str, ...], index: int = 1) -> str:
    """Return a word of a statement. ValueError if it is not a known one."""
    value = parameter(statement, index)
    if value not in known:
        raise ValueError(f"{statement}: unknown; {suggest(value, known)}")
    return value


def number(statement: Statement, low: int, high: int) -> int:
    """Return the number of a statement. ValueError if it is missing, or not from `low` to `high`."""
    return to_number(statement.words[0], parameter(statement), low, high)


def read_endpoint(words: list[str]) -> tuple[str, int]:
    """Read an address and a port. A missing port is 0. ValueError if one is wrong.

    As to keepalived, an address ends at the first `-`, or else at the first `/`.
    """
    if not words:
        raise ValueError("an address is missing")
    text = words[0]
    return parse_address(text.partition("-" if "-" in text else "/")[0]), read_port(words)


def read_port(words: list[str]) -> int:
    """Read the port behind an address; 0 if it is missing. ValueError if it is wrong."""
    return to_number("port", words[1], 0, PORT_MAX) if len(words) > 1 else 0
