"""Routes: their order, and foreign routes that are in the way.

The kernel may replace the wrong route if a foreign one has the same key as ours. A plan that needs such a replacement
is refused, and the message names the foreign route.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

from reconciler.diff import Change
from reconciler.errors import RefusedError
from reconciler.formats.iproute2 import route_words
from reconciler.model.identity import Listed
from reconciler.model.mark import PROTOCOL
from reconciler.model.route import Route
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.values import replace


def plan_routes(
    sure: list[Change[Route]], doubtful: list[Change[Route]], foreign: Iterable[Route]
) -> tuple[list[AddRoute | ReplaceRoute], list[DeleteRoute]]:
    """Return the routes to add or replace, and those to delete. `doubtful`: changes of routes that may be lost.

    RefusedError if a foreign route has the key of one that has to be written.
    """
    twins: dict[Hashable, list[Route]] = defaultdict(list)
    for route in foreign:
        twins[route.key].append(route)
    coming: list[AddRoute | ReplaceRoute] = []
    going: list[DeleteRoute] = []
    for number, change in enumerate((*sure, *doubtful)):
        before, after = change.before, change.after
        if after is None:
            if before is not None:
                going.append(DeleteRoute(route=before, doubtful=number >= len(sure)))
            continue
        if rivals := twins.get(after.key):
            if before is None and any(serves(after, each) for each in rivals):
                continue
            raise _refusal(after, rivals[0])
        coming.append(ReplaceRoute(route=after, before=before) if before else AddRoute(route=after))
    coming.sort(key=lambda op: op.route.needs_gateway)
    going.sort(key=lambda op: not op.route.needs_gateway)
    return coming, going


def plan_marks(wishes: Iterable[Route], found: Iterable[Route]) -> list[ReplaceRoute]:
    """Return what gives observed routes that equal desired ones the protocol of these, in place."""
    wishes, found = list(wishes), list(found)
    unlike = {each.key for each in (*wishes, *found) if each.protocol != PROTOCOL}
    if not unlike:
        return []
    had = {each.key: each for each in found if each.key in unlike}
    pairs = [(wish, had[wish.key]) for wish in wishes if wish.key in had]
    return [
        ReplaceRoute(route=wish, before=before)
        for wish, before in pairs
        if wish == before and wish.protocol != before.protocol
    ]


def serves(wish: Route, found: Route) -> bool:
    """Return whether a foreign route is what we would add: then there is nothing to do.

    The connected routes of the kernel have a source; the route of a manifest may lack it.
    """
    if wish.source is None and found.source is not None and not any(hop.gateway for hop in found.nexthops):
        found = replace(found, source=None)
    return found == wish


def _refusal(wish: Route, twin: Route) -> RefusedError:
    return RefusedError(
        f"route {route_words(wish)}: the route {route_words(twin)} is in its place and is not ours; "
        "delete it in the sandbox, or choose another metric",
        about=Listed("routes", wish.key),
    )
