"""What the page shows, with a version for each part, so that only what has changed is sent."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Protocol

from reconciler.values import NamedTuple
from reconciler.wording import printable, shorten

# The most bytes of one event, but for one row that has more.
CHUNK = 64 << 10
# The most values of a list, such as the fights of a sandbox, and how many removed sandboxes are remembered.
_LISTED, _REMOVED = 200, 10_000


class Source(Protocol):
    """What the page shows: the watcher. Any thread may call this."""

    def to_data(self) -> Mapping[str, Any]:
        """Return the status, as `status -o json` prints it."""

    def pulse(self) -> Hashable:
        """Return what is another value after each look and each change of manifests. It costs next to nothing."""

    def detail(self, sandbox: str) -> Mapping[str, Any] | None:
        """Return what is known of one sandbox; None if it is not watched."""


class _Part(NamedTuple):
    """What is known of one sandbox: since which version, as the watcher knows it, and as JSON for the page."""

    version: int
    data: Mapping[str, Any]
    shown: bytes


class Board:
    """Compares the status of the watcher with what it was before.

    A position is a version of this board, as text: what a client had seen of another board counts as nothing.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._name, self._host = source, secrets.token_hex(4), socket.gethostname()
        self.version = 0
        self._sandboxes: dict[str, _Part] = {}
        self._about = _Part(0, {}, b"{}")
        # Removed sandboxes, by the version that removed them, the oldest first. Before `_floor`, some are forgotten.
        self._removed: dict[str, int] = {}
        self._floor = 0

    def refresh(self) -> None:
        """Read the status. What has changed gets the next version."""
        data = {**self._source.to_data(), "host": self._host}
        found = {each["sandbox"]: each for each in data.pop("sandboxes")}
        version = self.version + 1
        if data != self._about.data:
            self._about = _Part(version, data, _encode(data))
            self.version = version
        for name, each in found.items():
            known = self._sandboxes.get(name)
            if known is None or known.data != each:
                self._sandboxes[name] = _Part(version, each, _encode(each))
                self._removed.pop(name, None)
                self.version = version
        for name in self._sandboxes.keys() - found.keys():
            del self._sandboxes[name]
            self._removed[name] = self.version = version
        while len(self._removed) > _REMOVED:
            self._floor = self._removed.pop(next(iter(self._removed)))

    def position(self, last_event: str) -> int:
        """Return the version that a client has seen, by the id of its last event; -1 if that is none of this board."""
        name, _, number = last_event.partition("-")
        is_known = name == self._name and number.isdecimal() and len(number) < 16 and int(number) <= self.version
        return int(number) if is_known and int(number) >= self._floor else -1

    def events(self, position: int, now: float) -> Iterator[bytes]:
        """Return the events that bring a client from a position to this version. `now`: Unix seconds."""
        parts = [each.shown for each in self._sandboxes.values() if each.version > position]
        gone = [name for name, version in self._removed.items() if version > position]
        end = {"now": now, "gone": gone, "all": position < 0}
        about = self._about.shown if self._about.version > position else b"null"
        words = b'%s, "about": %s}' % (json.dumps(end).encode()[:-1], about)
        last = b"id: %s-%d\n" % (self._name.encode(), self.version)
        return _events(parts, now, last + _event("end", words))


def _events(rows: list[bytes], now: float, end: bytes) -> Iterator[bytes]:
    chunk: list[bytes] = []
    size = 0
    for each in rows:
        if chunk and size + len(each) > CHUNK:
            yield _rows(chunk, now)
            chunk, size = [], 0
        chunk.append(each)
        size += len(each)
    if chunk:
        yield _rows(chunk, now)
    yield end


def _rows(rows: list[bytes], now: float) -> bytes:
    return _event("rows", b'{"now": %.3f, "rows": [%s]}' % (now, b",".join(rows)))


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


def beat(now: float) -> bytes:
    """Return the event that says that nothing has changed."""
    return _event("beat", json.dumps({"now": now}).encode())


def _encode(data: object) -> bytes:
    return json.dumps(harmless(data), separators=(",", ":")).encode()


def harmless(data: Any) -> Any:
    """Return data whose texts are as a line for people has them: printable, and short. So is the length of lists."""
    if isinstance(data, str):
        return printable(shorten(data))
    if isinstance(data, Mapping):
        return {name: harmless(each) for name, each in data.items()}
    if isinstance(data, list | tuple):
        more = [f"… and {len(data) - _LISTED:,} more"] if len(data) > _LISTED else []
        return [*map(harmless, data[:_LISTED]), *more]
    return data
