"""What notations of data have in common: things at paths, and mappings of which each key is used or reported.

A file is read to the end: what is wrong with a value is recorded, and the reader goes on without that value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from reconciler.model.address import parse_address, parse_mac, parse_prefix
from reconciler.model.attribute import Attributes
from reconciler.model.interface import Address, is_altname
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import Route
from reconciler.model.rule import Rule
from reconciler.values import dataclass, field
from reconciler.wording import shown

# Where something stands in a file: keys and indexes.
Path = tuple[str | int, ...]

BOTH = frozenset({"IPv4", "IPv6"})
NO_FIELD = "a manifest has no such field"
# Mappings in all files, and things and addresses that they become; more than one look at a sandbox may yield.
OBJECTS_MAX = 200_000
# The priority of a rule for which the file has none.
NO_PRIORITY = -1
# Of each file: what is left out or wrong beyond this is counted.
REPORTED_MAX = 1000

_NUMBER = re.compile(r"-?(?:[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16})\Z")
_TRUE, _FALSE = frozenset({"1", "yes", "y", "true", "t", "on"}), frozenset({"0", "no", "n", "false", "f", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What one file says of a NIC. None: nothing.

    `state`: `up` or `down`. `partial`: the families (`IPv4`, `IPv6`) of which it has, or may get, addresses that are
    not among `addresses`: of DHCP or routers, or such as no manifest has. `matched`: the file knows the NIC only by
    this MAC address, and `name` is but the file's own name for it, or the MAC address again.
    """

    name: str
    device: str | None = None
    hw_addr: str | None = None
    mtu: int | None = None
    state: str | None = None
    addresses: tuple[Address, ...] = ()
    attributes: Attributes = ()
    altnames: tuple[str, ...] | None = None
    partial: frozenset[str] = frozenset()
    matched: str | None = None


Thing = Link | Route | Rule | Neighbour


class TooManyError(ValueError):
    """The files have more than OBJECTS_MAX objects, counting each use of an alias of YAML."""

    def __init__(self) -> None:
        super().__init__(f"more than {OBJECTS_MAX:,} objects in all files together")


@dataclass
class Found:
    """What one file contains, each thing with its path.

    `skipped` is left out, with the reason; `wrong` is what the tool itself would not accept. `absent`: the names of
    links that are left out, with the reason: neither are their routes imported. `more`: how many are not listed.
    `left`: how many objects may follow.
    """

    things: list[tuple[Path, Thing]] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    wrong: list[tuple[Path, str]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    more: Counter[str] = field(default_factory=Counter)
    left: int = OBJECTS_MAX

    def add(self, path: Path, thing: Thing) -> None:
        """Add a thing."""
        self.spend(1 + (len(thing.addresses) if isinstance(thing, Link) else 0))
        self.things.append((path, thing))

    def spend(self, objects: int) -> None:
        """Count objects. TooManyError if there are too many."""
        self.left -= objects
        if self.left < 0:
            raise TooManyError

    def skip(self, path: Path, why: str = NO_FIELD) -> None:
        """Add what is not imported, and why."""
        self._report("skipped", path, f"not imported: {why}")

    def note(self, path: Path, message: str) -> None:
        """Add what is imported as something else than it is written."""
        self._report("skipped", path, message)

    def fault(self, path: Path, message: str) -> None:
        """Add what is wrong."""
        self._report("wrong", path, message)

    def count(self, what: str) -> None:
        """Count things of a kind that is left out without a line for each, such as what the kernel makes by itself."""
        self.counted[what] += 1

    def _report(self, kind: str, path: Path, message: str) -> None:
        reports = self.skipped if kind == "skipped" else self.wrong
        if len(reports) < REPORTED_MAX:
            reports.append((path, message))
        else:
            self.more[kind] += 1


class Entry:
    """A mapping in a file. Each getter marks its key as used; None or nothing stands for a key that is not there.

    A value of another form is reported as wrong, and counts as absent. TooManyError if there are too many.
    """

    def __init__(self, data: Any, path: Path, found: Found) -> None:
        self.path, self.found = path, found
        found.spend(1)
        self._data: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        self._left = dict.fromkeys(self._data)
        if data is not None and not isinstance(data, Mapping):
            found.fault(path, "expected a mapping")

    def __contains__(self, key: str) -> bool:
        return self._data.get(key) is not None

    def has(self, key: str) -> bool:
        """Return whether a key is there, also without a value."""
        return key in self._data

    def at(self, key: str) -> Path:
        """Return the path of a key."""
        return (*self.path, key)

    def get(self, key: str) -> Any:
        """Return a value of any form."""
        self._left.pop(key, None)
        return self._data.get(key)

    def text(self, key: str) -> str | None:
        """Return a text; a number is its digits."""
        value = self.get(key)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        self.found.fault(self.at(key), f"{shown(value)}: expected a text")
        return None

    def number(self, key: str, low: int, high: int) -> int | None:
        """Return a number from `low` to `high`, which may be written as text, also in hexadecimal."""
        value = self.get(key)
        if value is None:
            return None
        text = "" if isinstance(value, bool) else str(value).strip() if isinstance(value, str | int) else ""
        if _NUMBER.match(text):
            number = int(text, 16 if text[:3].lower().lstrip("-").startswith("0x") else 10)
            if low <= number <= high:
                return number
        expected = f"a number from {low} to {high}" if low < high else str(low)
        self.found.fault(self.at(key), f"{shown(value)}: expected {expected}")
        return None

    def flag(self, key: str) -> bool | None:
        """Return a boolean, in any of the words that the tools take for one."""
        value = self.get(key)
        if value is None or isinstance(value, bool):
            return value
        word = str(value).lower() if isinstance(value, str | int) else ""
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        self.found.fault(self.at(key), f"{shown(value)}: expected true or false")
        return None

    def address(self, key: str) -> str | None:
        """Return an IP address."""
        text = self.text(key)
        return self._parsed(key, parse_address, text) if text else None

    def mac(self, key: str) -> str | None:
        """Return a MAC address that a NIC can have."""
        text = self.text(key)
        return self._parsed(key, parse_mac, text) if text else None

    def prefix(self, key: str) -> str | None:
        """Return `address/length` with host bits; an address alone has the full length."""
        text = self.text(key)
        return self._parsed(key, parse_prefix, text) if text else None

    def _parsed(self, key: str, parse: Any, text: str) -> str | None:
        try:
            return str(parse(text))
        except ValueError as error:
            self.found.fault(self.at(key), str(error))
            return None

    def items(self, key: str) -> Iterator[tuple[Path, Any]]:
        """Yield the items of a list, each with its path."""
        value = self.get(key)
        if isinstance(value, list):
            yield from (((*self.at(key), index), item) for index, item in enumerate(value))
        elif value is not None:
            self.found.fault(self.at(key), f"{shown(value)}: expected a list")

    def texts(self, key: str) -> list[str]:
        """Return the items of a list of texts, such as flags."""
        return [str(item) for _, item in self.items(key)]

    def entry(self, key: str) -> Entry:
        """Return the mapping that is the value of a key; an empty one if there is none."""
        return Entry(self.get(key), self.at(key), self.found)

    def entries(self, key: str) -> Iterator[Entry]:
        """Yield the mappings of a list."""
        for path, item in self.items(key):
            if isinstance(item, Mapping):
                yield Entry(item, path, self.found)
            else:
                self.found.fault(path, f"{shown(item)}: expected a mapping")

    def left(self) -> Iterator[str]:
        """Yield the keys that are not used yet."""
        return iter(list(self._left))

    def drop(self, keys: Iterable[str]) -> None:
        """Mark keys as used: they say nothing that a manifest could say."""
        for key in keys:
            self._left.pop(key, None)

    def skip(self, key: str, why: str) -> None:
        """Report a key as left out, if it is there."""
        if self.get(key) is not None:
            self.found.skip(self.at(key), why)

    def usual(self, key: str, values: Container[str], why: str = NO_FIELD) -> None:
        """Report a key as left out unless it has one of these values, which say what holds without it."""
        value = self.text(key)
        if value is not None and value not in values:
            self.found.skip(self.at(key), f"{shown(value)}: {why}")

    def rest(self, reasons: Mapping[str, str] | None = None) -> None:
        """Report each key that was not used, with its reason if one is known; also one whose value is null."""
        for key in self.left():
            self._left.pop(key)
            self.found.skip(self.at(key), (reasons or {}).get(key, NO_FIELD))


def expressible_altnames(found: Found, named: Iterable[tuple[Path, str]]) -> tuple[str, ...] | None:
    """Return the alternative names of a NIC that a manifest can have, None if there are none; report the others."""
    names = set()
    for path, name in named:
        if is_altname(name):
            names.add(name)
        else:
            found.skip(path, f"{name}: no manifest can have such a name")
    return tuple(sorted(names)) or None
