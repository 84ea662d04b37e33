"""etcd's messages ↔ values of the store. The numbers are those that etcd publishes (api/etcdserverpb/rpc.proto)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.fleet.etcd.wire import Message, data, message, number
from reconciler.fleet.store import Compare, Delete, Event, Pair, Put
from reconciler.values import NamedTuple

_CREATED, _MODIFIED = 1, 2
_DELETED = 1


class Header(NamedTuple):
    """What each answer has: which cluster it is, and the store's revision."""

    cluster: int
    revision: int


class Range(NamedTuple):
    """The answer to a read. `more`: there are further keys than the limit allowed."""

    header: Header
    pairs: tuple[Pair, ...]
    more: bool


class Watched(NamedTuple):
    """One message of a watch.

    `created`: the watch has begun; `cancelled`: it has ended. `compacted`: the oldest revision that can still be
    watched, if that is why it has ended; 0 otherwise. `fragment`: further messages have the rest.
    """

    header: Header
    created: bool
    cancelled: bool
    compacted: int
    fragment: bool
    events: tuple[Event, ...]


def end_of(prefix: str) -> bytes:
    """Return the first key behind all that begin with a prefix, whose last character is one of ASCII but the last."""
    return prefix[:-1].encode() + bytes([ord(prefix[-1]) + 1])


def read_request(
    key: str, end: bytes = b"", *, limit: int = 0, revision: int = 0, keys_only: bool = False, count_only: bool = False
) -> bytes:
    """Return the request for a key, or for all keys from it to `end`. `revision` 0: as they are now."""
    return (
        data(1, key.encode())
        + data(2, end)
        + number(3, limit)
        + number(4, revision)
        + number(8, keys_only)
        + number(9, count_only)
    )


def read_answer(answer: bytes) -> Range:
    """Return the answer to `read_request`."""
    found = Message(answer)
    return Range(_header(found), tuple(map(_pair, found.all(2))), bool(found.number(3)))


def read_several_request(keys: Sequence[str]) -> bytes:
    """Return the request for several keys at once, which is a transaction."""
    return b"".join(message(2, message(1, read_request(each))) for each in keys)


def read_several_answer(answer: bytes) -> Iterator[Pair]:
    """Yield those of the keys of `read_several_request` that exist."""
    for each in Message(answer).all(3):
        yield from map(_pair, Message(Message(each).data(1)).all(2))


def transaction_request(operations: Sequence[Put | Delete], conditions: Sequence[Compare]) -> bytes:
    """Return the request for a transaction, which does nothing if a condition does not hold."""
    compared = [message(1, each) for condition in conditions for each in _comparisons(condition)]
    return b"".join([*compared, *(message(2, _operation(each)) for each in operations)])


def transaction_answer(answer: bytes) -> tuple[Header, bool]:
    """Return the header of an answer to `transaction_request`, and whether the conditions held."""
    found = Message(answer)
    return _header(found), bool(found.number(2))


def _comparisons(condition: Compare) -> list[bytes]:
    key = data(3, condition.key.encode())
    found = []
    if condition.created is not None:
        found.append(number(2, _CREATED) + key + number(5, condition.created))
    if condition.modified is not None:
        found.append(number(2, _MODIFIED) + key + number(6, condition.modified))
    return found


def _operation(operation: Put | Delete) -> bytes:
    key = data(1, operation.key.encode())
    if isinstance(operation, Delete):
        return message(3, key)
    return message(2, key + data(2, operation.value) + number(3, operation.lease))


def grant_request(seconds: int) -> bytes:
    """Return the request for a lease."""
    return number(1, seconds)


def grant_answer(answer: bytes) -> int:
    """Return the lease that was granted."""
    return Message(answer).number(2)


def lease_request(lease: int) -> bytes:
    """Return the request to keep or to revoke a lease."""
    return number(1, lease)


def keep_answer(answer: bytes) -> int:
    """Return how many seconds a lease has left; 0 if it has ended."""
    return Message(answer).number(3)


def compact_request(revision: int) -> bytes:
    """Return the request to forget everything before a revision."""
    return number(1, revision)


def watch_request(prefix: str, revision: int) -> bytes:
    """Return the request for all changes of keys below a prefix from a revision on, in fragments if they are large."""
    return message(1, data(1, prefix.encode()) + data(2, end_of(prefix)) + number(3, revision) + number(8, 1))


# The request for a message even if nothing has changed: it shows that the member still answers.
PROGRESS_REQUEST = message(3, b"")


def watch_answer(answer: bytes) -> Watched:
    """Return one message of a watch."""
    found = Message(answer)
    return Watched(
        _header(found),
        bool(found.number(3)),
        bool(found.number(4)),
        found.number(5),
        bool(found.number(7)),
        tuple(map(_event, found.all(11))),
    )


def _header(found: Message) -> Header:
    header = Message(found.data(1))
    return Header(header.number(1), header.number(3))


def _pair(received: bytes) -> Pair:
    found = Message(received)
    key = found.data(1).decode(errors="replace")
    return Pair(key, found.data(5), found.number(2), found.number(3), found.number(6))


def _event(received: bytes) -> Event:
    found = Message(received)
    pair = _pair(found.data(2))
    return Event(pair.key, None if found.number(1) == _DELETED else pair, pair.modified)
