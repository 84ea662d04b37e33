"""Pauses and resumes the rollout, or one host."""

from __future__ import annotations

import argparse
import time

from reconciler.cli.fleet.connection import with_store
from reconciler.cli.output import say
from reconciler.errors import HostError
from reconciler.fleet import keys
from reconciler.fleet.changing import change, change_host
from reconciler.fleet.records import HostRecord, Rollout, RolloutState
from reconciler.fleet.store import Store
from reconciler.history.author import person
from reconciler.values import replace


def set_paused(arguments: argparse.Namespace, *, paused: bool) -> int:
    """Pause or resume. Nothing happens if that is so already."""
    if arguments.host is None:
        say(with_store(arguments, _pause_rollout if paused else _resume_rollout))
        return 0

    def changed(record: HostRecord) -> HostRecord:
        return replace(record, paused=paused)

    async def work(store: Store) -> None:
        await change_host(store, arguments.host, changed)

    with_store(arguments, work)
    say(f"{arguments.host}: {'paused: it is told nothing new' if paused else 'not paused'}")
    return 0


async def _pause_rollout(store: Store) -> str:
    def paused(rollout: Rollout) -> Rollout:
        if rollout.state in {RolloutState.DONE, RolloutState.PAUSED}:
            return rollout
        who = person("fleet pause")["user"]
        return replace(rollout, state=RolloutState.PAUSED, since=time.time(), reason=f"paused by {who}")

    found = await change(store, keys.ROLLOUT, Rollout, paused)
    return _words(found)


async def _resume_rollout(store: Store) -> str:
    def resumed(rollout: Rollout) -> Rollout:
        if rollout.state not in {RolloutState.PAUSED, RolloutState.STOPPED}:
            return rollout
        return replace(rollout, state=RolloutState.ROLLING, since=time.time(), reason="")

    found = await change(store, keys.ROLLOUT, Rollout, resumed)
    return _words(found)


def _words(rollout: Rollout | None) -> str:
    if rollout is None:
        raise HostError("nothing was pushed yet, so there is no rollout")
    return f"release {rollout.release}: {rollout.state}"
