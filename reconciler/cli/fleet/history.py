"""`reconciler fleet history`: print the releases."""

from __future__ import annotations

import argparse
import time

from reconciler.cli.fleet.connection import add_etcd, with_store
from reconciler.cli.parser import add_output
from reconciler.values import asdict


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_output(parser, "text", "json", "yaml", words="form of the output")
    add_etcd(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the releases, the newest first."""
    from reconciler.cli import table
    from reconciler.cli.output import print_data, say
    from reconciler.fleet import keys
    from reconciler.fleet.known import parse, read_all
    from reconciler.fleet.records import Release, Rollout
    from reconciler.fleet.store import Store

    async def work(store: Store) -> tuple[list[Release], str]:
        releases = await read_all(store, keys.RELEASES, Release)
        pair = await store.read(keys.ROLLOUT)
        rollout = parse(Rollout, pair) if pair else None
        names = [rollout.release, *rollout.history] if rollout else []
        state = rollout.state.value if rollout else ""
        return [releases[name] for name in names if name in releases], state

    found, state = with_store(arguments, work)
    if arguments.output != "text":
        print_data({"releases": [asdict(each) for each in found]}, arguments.output)
        return 0
    rows, notes = [], []
    for number, each in enumerate(found):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.when))
        hosts = f"{sum(map(len, each.waves)):,}" if each.plans else "-"
        rows.append((each.name, when, each.commit[:12] + "-dirty" * each.commit.endswith("-dirty"), each.author, hosts))
        words = [state] if number == 0 else [] if each.plans else ["cannot be restored any more"]
        notes.append("; ".join([*words, *([f"restores {each.restores}"] if each.restores else [])]))
    say(*table.render(("RELEASE", "PUSHED", "COMMIT", "BY", "HOSTS"), rows, notes))
    return 0
