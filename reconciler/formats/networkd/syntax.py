"""Sections and assignments of systemd's files (systemd.syntax(7)), each with its place.

A section that describes one object, such as [Route], is another object each time it comes. Any other section is one,
in whatever parts and files it comes. Of a setting that is assigned several times, the last value counts; an empty value
resets it. Lists grow instead.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

from reconciler.formats.entry import NO_FIELD, Entry, Found, Path
from reconciler.values import NamedTuple
from reconciler.wording import shown

# Sections that come once for each object.
REPEATED = frozenset({"Address", "Neighbor", "IPv6AddressLabel", "RoutingPolicyRule", "NextHop", "Route"})
# Settings of [Network] of which an empty one resets such sections as well.
_RESET = {"Address": "Address", "Gateway": "Route"}
_HEADER = re.compile(r"\[([^\]\[]+)\][ \t]*\Z")
# Of one file with its drop-ins; systemd takes lines of at most 1 MiB.
_LINE_MAX = 1 << 20


class Place(NamedTuple):
    """A file and a line, from 1."""

    file: str
    line: int


class Section(Entry):
    """A section: each key has a list of values, in the order of their assignment."""

    def get(self, key: str) -> Any:
        """Return the last value of a setting; None if that is empty."""
        values = super().get(key)
        return (values[-1] or None) if values else None

    def items(self, key: str) -> Iterator[tuple[Path, Any]]:
        """Yield the values of a list: those since it was last reset."""
        values = super().get(key) or []
        start = max((index + 1 for index, value in enumerate(values) if not value), default=0)
        yield from (((*self.at(key), index), value) for index, value in enumerate(values) if index >= start)

    def entry(self, key: str) -> Entry:
        """Raise: a setting has no settings."""
        raise NotImplementedError(key)

    def rest(self, reasons: Mapping[str, str] | None = None) -> None:
        """Report each setting that was not used and is not reset."""
        for key in self.left():
            if self.get(key) is not None:
                self.found.skip(self.at(key), (reasons or {}).get(key, NO_FIELD))

    def words(self, key: str) -> list[str]:
        """Return the words of all values of a list."""
        return [word for _, value in self.items(key) for word in str(value).split()]


class Document:
    """The sections of a file and its drop-ins, and where each of their settings is."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.places: dict[Path, Place] = {}
        self._data: dict[Path, dict[str, list[str]]] = {}
        self._counts: dict[str, int] = {}

    def read(self, file: str, text: str) -> None:
        """Read a file: the main one first, then its drop-ins in order."""
        section: Path = ()
        for number, line in _logical(text):
            place = Place(file, number)
            header = _HEADER.match(line)
            if header:
                section = self._open(header[1], place)
            else:
                self._assign(section, line, place)

    def _open(self, name: str, place: Place) -> Path:
        section: Path = (name,)
        if name in REPEATED:
            number = self._counts.get(name, 0)
            section, self._counts[name] = (name, number), number + 1
        self._data.setdefault(section, {})
        self.places.setdefault(section, place)
        return section

    def _assign(self, section: Path, line: str, place: Place) -> None:
        key, equals, value = line.partition("=")
        key = key.strip()
        if not equals or not section or not key:
            path = (*section, f"line {place.line}")
            self.places[path] = place
            where = "" if section else " outside of a section"
            self.found.skip(path, f"{shown(line)}: networkd ignores such a line{where}")
            return
        if section == ("Network",) and not value.strip():
            self._reset(key)
        values = self._data[section].setdefault(key, [])
        self.places[*section, key, len(values)] = place
        self.places[*section, key] = place
        values.append(value.strip())

    def _reset(self, key: str) -> None:
        """Drop what an empty Address= or Gateway= of [Network] resets: all addresses, or all routes, that are above."""
        name = _RESET.get(key)
        if name is None:
            return
        why = f"an empty {key}= below it resets it"
        one = Section(self._data[("Network",)], ("Network",), self.found)
        for path, _ in one.items(key):
            self.found.skip(path, why)
        for path in [path for path in self._data if path[0] == name]:
            self.found.skip(path, why)
            del self._data[path]

    def __contains__(self, name: str) -> bool:
        return any(section[0] == name for section in self._data)

    def one(self, name: str) -> Section:
        """Return a section that comes once; an empty one if it does not come."""
        return Section(self._data.get((name,), {}), (name,), self.found)

    def each(self, name: str) -> Iterator[Section]:
        """Yield the sections of a name that comes for each object."""
        for path, data in self._data.items():
            if path[0] == name:
                yield Section(data, path, self.found)

    def others(self, known: Container[str | int]) -> Iterator[Path]:
        """Yield sections of other names, except those that systemd ignores by design."""
        for path in self._data:
            if path[0] not in known and not str(path[0]).startswith("X-"):
                yield path

    def place(self, path: Path) -> Place | None:
        """Return where the innermost part of a path is that has a place."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path)


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, each with its number; a line that ends in a backslash goes on in the next one."""
    parts: list[str] = []
    first = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if line[:1] in ("#", ";") or (not line and not parts):
            continue
        first = first if parts else number
        if line.endswith("\\"):
            parts.append(line[:-1])
            continue
        whole = " ".join([*parts, line]).strip()[:_LINE_MAX]
        parts = []
        if whole:
            yield first, whole
    if parts:
        yield first, " ".join(parts).strip()[:_LINE_MAX]
