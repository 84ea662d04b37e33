"""What the fleet needs of its engine: keys with revisions, transactions, leases, and changes as they come.

Keys are text, values are bytes. Each change of the store has a revision, a number that only grows. `etcd` is the one
implementation for real use, `memory` the one for tests of logic.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from reconciler.errors import ReconcilerError
from reconciler.values import NamedTuple

# What one transaction may have. etcd allows 128 operations and 1,572,000 bytes.
MAX_OPERATIONS = 100
MAX_BYTES = 1_000_000


class StoreError(ReconcilerError):
    """The store did not answer. A read, and a write without conditions, can be tried again."""

    retry = True


class UnknownOutcomeError(StoreError):
    """The connection was lost during a transaction with conditions: it was carried out, or it was not."""


class LeaseGoneError(StoreError):
    """A lease has ended, and its keys are gone."""


class Pair(NamedTuple):
    """A key and its value. `created`, `modified`: the revisions of its first and of its last put since it exists.

    `lease`: the lease that it ends with; 0 if it has none.
    """

    key: str
    value: bytes
    created: int
    modified: int
    lease: int = 0


class Event(NamedTuple):
    """A change of a key. `pair`: what it has now; None if it was deleted. `revision`: that of the change.

    An event that a comparison of two lists has found has the revision of the later list, if it is a deletion.
    """

    key: str
    pair: Pair | None
    revision: int


class Changes(NamedTuple):
    """Changes that belong together, oldest first, and the revision up to which everything is known now.

    Without events, it says that there were none: the store is reachable, and nothing was missed.
    """

    events: tuple[Event, ...]
    revision: int


class Listing(NamedTuple):
    """The keys below a prefix in their order, all as they were at one revision."""

    pairs: tuple[Pair, ...]
    revision: int


class Compare(NamedTuple):
    """A condition of a transaction on the revisions of a key, each unless it is None. A missing key has 0 as both."""

    key: str
    created: int | None = None
    modified: int | None = None


class Put(NamedTuple):
    """Set the value of a key. `lease`: the key is deleted when this lease ends; 0 for none."""

    key: str
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    """Delete a key, if it exists."""

    key: str


class Outcome(NamedTuple):
    """What became of a transaction. `succeeded`: all conditions held, and all operations were carried out."""

    succeeded: bool
    revision: int


class Store(Protocol):
    """The store of a fleet. Each method raises StoreError if the store does not answer."""

    async def read(self, key: str) -> Pair | None:
        """Return what a key has; None if it does not exist."""
        ...

    async def read_several(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return key → value of those of at most MAX_OPERATIONS keys that exist, all as they were at one revision."""
        ...

    async def list(self, prefix: str, *, keys_only: bool = False) -> Listing:
        """Return all keys that begin with a prefix. `keys_only`: with empty values."""
        ...

    async def commit(self, operations: Sequence[Put | Delete], conditions: Sequence[Compare] = ()) -> Outcome:
        """Carry out operations, at most MAX_OPERATIONS with MAX_BYTES, all or none of them: if all conditions hold.

        No key may be in two operations. Without conditions, it is repeated until it is known to be carried out. With
        conditions, UnknownOutcomeError if that cannot be known.
        """
        ...

    async def grant(self, seconds: int) -> int:
        """Return a new lease, which ends after so many seconds unless it is kept. It is never 0."""
        ...

    async def keep(self, lease: int) -> None:
        """Let a lease begin anew. LeaseGoneError if it has ended."""
        ...

    async def revoke(self, lease: int) -> None:
        """End a lease, which deletes its keys. Nothing happens if it has ended."""
        ...

    def follow(self, prefix: str) -> AsyncGenerator[Changes, None]:
        """Yield what is below a prefix as one `Changes`, then each change, and every few seconds that all is known.

        It never ends, and never raises StoreError: it connects again for as long as it takes, and then yields all
        differences. Of several changes of a key during a gap, it may yield only the last. So a consumer that gets
        nothing for 15 s knows that the store is unreachable. Close it (`aclosing`) to end it.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget everything before a revision. A revision that was compacted already is a success."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...
