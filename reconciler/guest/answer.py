"""Reads an answer in JSON of a peer that may lie: whatever has another shape than it should is a ProtocolError."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from reconciler.errors import ProtocolError

# Characters of a text. Paths have at most 4,095.
_TEXT = 4096
# Characters of a wrong value that a message shows.
_SHOWN = 60
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


class Answer:
    """A value of an answer. `what` names it in errors, such as `query-pci[0].bus`."""

    __slots__ = ("_value", "_what")

    def __init__(self, value: object, what: str) -> None:
        self._value, self._what = value, what

    def __iter__(self) -> Iterator[Answer]:
        """Yield the values of a list."""
        if not isinstance(self._value, list):
            self._refuse("a list")
        for number, each in enumerate(self._value):
            yield Answer(each, f"{self._what}[{number}]")

    def __getitem__(self, name: str) -> Answer:
        """Return a field of an object."""
        found = self.get(name)
        if found is None:
            raise ProtocolError(f"QEMU's answer lacks {self._what}.{name}")
        return found

    def get(self, name: str) -> Answer | None:
        """Return a field of an object; None if it has no such field."""
        if not isinstance(self._value, dict):
            self._refuse("an object")
        return Answer(self._value[name], f"{self._what}.{name}") if name in self._value else None

    def text(self) -> str:
        """Return a text of printable characters; it may be empty."""
        if not isinstance(self._value, str) or len(self._value) > _TEXT or not self._value.isprintable():
            self._refuse(f"a text of at most {_TEXT} printable characters")
        return self._value

    def mac(self) -> str:
        """Return a MAC address in lower case."""
        if not isinstance(self._value, str) or not _MAC.fullmatch(self._value):
            self._refuse("a MAC address")
        return self._value.lower()

    def number(self, most: int) -> int:
        """Return a number from 0 to `most`."""
        if not isinstance(self._value, int) or isinstance(self._value, bool) or not 0 <= self._value <= most:
            self._refuse(f"a number from 0 to {most}")
        return self._value

    def flag(self) -> bool:
        """Return true or false."""
        if not isinstance(self._value, bool):
            self._refuse("true or false")
        return self._value

    def _refuse(self, expected: str) -> NoReturn:
        shown = ascii(self._value if not isinstance(self._value, (list, dict)) else type(self._value).__name__)
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}…"
        raise ProtocolError(f"QEMU answered {self._what} = {shown}; {expected} was expected")
