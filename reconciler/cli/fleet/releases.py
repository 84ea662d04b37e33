"""The names of releases, as people give them."""

from __future__ import annotations

from reconciler.errors import HostError
from reconciler.fleet import keys
from reconciler.fleet.store import Store
from reconciler.wording import suggest


async def find_release(store: Store, given: str) -> str:
    """Return the name of a release that is given by its name or its number. HostError if there is none."""
    names = [keys.last(each.key) for each in (await store.list(keys.RELEASES, keys_only=True)).pairs]
    found = [each for each in names if given in {each, each.partition("-")[0]}]
    if len(found) != 1:
        hint = suggest(given, names, listed_by="`reconciler fleet history`") if names else "nothing was pushed yet"
        raise HostError(f'there is no release "{given}"; {hint}')
    return found[0]
