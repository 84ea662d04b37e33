"""Changes of single records by a person: read, change, and write if nobody has changed the record meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from reconciler.errors import HostError
from reconciler.fleet import keys
from reconciler.fleet.known import parse
from reconciler.fleet.records import HostRecord, encode
from reconciler.fleet.store import Compare, Put, Store, StoreError, UnknownOutcomeError
from reconciler.wording import suggest

_T = TypeVar("_T")
_ATTEMPTS = 50


async def change(store: Store, key: str, kind: type[_T], changed: Callable[[_T], _T]) -> _T | None:
    """Replace a record by what a function makes of it; return that. None if there is no record."""
    for _ in range(_ATTEMPTS):
        pair = await store.read(key)
        if pair is None:
            return None
        before = parse(kind, pair)
        after = changed(before)
        if after == before:
            return after
        with suppress(UnknownOutcomeError):
            if (await store.commit([Put(key, encode(after))], [Compare(key, modified=pair.modified)])).succeeded:
                return after
    raise StoreError(f"{key} in etcd changes all the time; try again")


async def change_host(store: Store, name: str, changed: Callable[[HostRecord], HostRecord]) -> HostRecord:
    """Replace what is known of a host. HostError if it is unknown."""
    found = await change(store, keys.host(name), HostRecord, changed)
    if found is None:
        raise await unknown_host(store, name)
    return found


async def unknown_host(store: Store, name: str) -> HostError:
    """Return the error about a host that the fleet does not have."""
    known = [keys.last(each.key) for each in (await store.list(keys.HOSTS, keys_only=True)).pairs]
    hint = suggest(name, known, listed_by="`reconciler fleet status`") if known else "it has none yet"
    return HostError(f'the fleet has no host "{name}"; {hint}')
