"""Waits for a release, and prints why it does not go on."""

from __future__ import annotations

import asyncio

from reconciler.cli.output import flush, say, warn
from reconciler.fleet import keys
from reconciler.fleet.known import parse
from reconciler.fleet.records import Rollout, RolloutState
from reconciler.fleet.store import Store

_POLL = 0.25


async def wait_for(store: Store, name: str) -> int:
    """Return 0 once a release has reached its hosts; 1 once its rollout has stopped, or another release is newer."""
    said = ""
    while True:
        pair = await store.read(keys.ROLLOUT)
        rollout = parse(Rollout, pair) if pair else None
        if rollout is None or rollout.release != name:
            newer = f"release {rollout.release} is newer" if rollout else "nothing is rolled out any more"
            warn(f"release {name}: {newer}")
            return 1
        if rollout.state == RolloutState.DONE:
            say(f"release {name}: done")
            return 0
        place = f"release {name}: {rollout.state}, wave {rollout.wave + 1}"
        if rollout.state == RolloutState.STOPPED:
            warn(f"{place}: {rollout.reason}")
            return 1
        is_led = await store.read(keys.LEADER) is not None
        words = (
            f"{place}: {rollout.reason or 'under way'}" if is_led else f"{place}: no gate leads the rollout at present"
        )
        if words != said:
            say(words)
            flush()
            said = words
        await asyncio.sleep(_POLL)
