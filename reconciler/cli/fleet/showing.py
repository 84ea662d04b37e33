"""Shows how far hosts and the rollout are: once, or as it changes."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

from reconciler.cli import table
from reconciler.cli.fleet.connection import with_store
from reconciler.cli.output import Screen, flush, print_data, print_line, say, warn
from reconciler.cli.terminal import aligned, columns
from reconciler.errors import HostError
from reconciler.fleet import overview
from reconciler.fleet.changing import unknown_host
from reconciler.fleet.known import read_fleet
from reconciler.fleet.store import Store, StoreError
from reconciler.wording import plural

_POLL = 1.0


def show(arguments: argparse.Namespace) -> int:
    """Show it, and return the exit code."""

    async def work(store: Store) -> dict[str, Any]:
        found = await _read(store, arguments.host)
        if arguments.watch:
            return await _follow(store, arguments, found)
        _print(arguments, found)
        return found

    return _exit_code(with_store(arguments, work))


async def _read(store: Store, host: str | None) -> dict[str, Any]:
    """Return what is known, as data; of one host all of it."""
    known, report, leader = await read_fleet(store)
    if host is not None and host not in known.hosts:
        raise await unknown_host(store, host)
    states = [each for each in overview.host_states(known, report) if host in {None, each.host}]
    found = overview.document(known, report, states, leader)
    if host is not None:
        status, plan, record = report.statuses.get(host), known.plans.get(host), known.hosts[host]
        found["hosts"][0] |= {
            "labels": record.labels,
            "fingerprint": record.fingerprint,
            "reported": status.when if status else 0.0,
            "sandboxes": sorted(plan.sandboxes) if plan else [],
            "unusual": [
                {"sandbox": each.sandbox, "state": each.state, "detail": each.detail}
                for each in (status.unusual if status else ())
            ],
        }
    return found


def _exit_code(found: dict[str, Any]) -> int:
    rollout = found["rollout"]
    wrong = found["alarms"] or (rollout and rollout["state"] == "stopped")
    return int(bool(wrong) or any(each["state"] not in overview.GOOD for each in found["hosts"]))


def _print(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    if arguments.output != "text":
        print_data(found, arguments.output)
        return
    say(*_lines(arguments, found))
    warn(*found["alarms"])


def _lines(arguments: argparse.Namespace, found: dict[str, Any]) -> Iterator[str]:
    for each in _rollout(found):
        yield from _fitting(each)
    if arguments.host is not None:
        yield ""
        yield arguments.host
        yield from table.facts(list(_facts(found["hosts"][0])), sys.stdout)
        return
    counts: dict[str, int] = {}
    for each in found["hosts"]:
        counts[each["state"]] = counts.get(each["state"], 0) + 1
    words = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    sum_ = f"{len(found['hosts']):,} {plural('host', len(found['hosts']))}"
    yield from _fitting(f"{sum_}: {words}" if words else f"{sum_}; `reconciler fleet host add NAME` adds one")
    if found["hosts"]:
        yield ""
        rows = [
            (each["host"], each["state"], each["release"] or "-", str(each["wave"] or "-"), _counts(each))
            for each in found["hosts"]
        ]
        notes = [each["detail"] for each in found["hosts"]]
        yield from table.render(("HOST", "STATE", "RELEASE", "WAVE", "SANDBOXES"), rows, notes)


def _fitting(text: str) -> Iterator[str]:
    """Yield a line as lines that fit the terminal, if it is one."""
    most = columns(sys.stdout)
    yield from [text] if most is None else table.wrap(aligned(text, sys.stdout), most, "")


def _rollout(found: dict[str, Any]) -> Iterator[str]:
    rollout = found["rollout"]
    if rollout is None:
        yield "nothing was pushed yet"
        return
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["pushed"]))
    yield f"release {found['release']}, commit {found['commit'][:12]}, pushed {when} by {found['author']}"
    wave = f", wave {rollout['wave']} of {rollout['waves']}" if rollout["state"] != "done" else ""
    yield f"rollout {rollout['state']}{wave}" + (f": {rollout['reason']}" if rollout["reason"] else "")


def _counts(each: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in each["counts"].items()) or "-"


def _facts(each: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "state", each["state"]
    if each["detail"]:
        yield "detail", each["detail"]
    yield "release", f"{each['release'] or 'none'}" + (f", wanted {each['wanted']}" if each["wanted"] else "")
    yield "gate", each["gate"] or "none"
    yield "certificate", each["fingerprint"] or "none, so it may not connect"
    if each["labels"]:
        yield "labels", ", ".join(f"{name}={value}" for name, value in each["labels"].items())
    yield "sandboxes", f"{len(each['sandboxes']):,}: {_counts(each)}"
    for one in each["unusual"]:
        yield one["sandbox"], f"{one['state']}" + (f": {one['detail']}" if one["detail"] else "")


async def _follow(store: Store, arguments: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    """Show it again and again until a signal comes; return the last of it."""
    try:
        if arguments.output == "text" and Screen.is_possible():
            with Screen() as screen:
                while True:
                    alarms = found["alarms"]
                    screen.draw([*alarms, *([""] * bool(alarms)), *_lines(arguments, found)])
                    found = await _again(store, arguments, found)
        known: dict[str, Any] = {}
        while True:
            for name, each in _news(known, found):
                known[name] = each
                _print_news(arguments, each)
            flush()
            found = await _again(store, arguments, found)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return found


async def _again(store: Store, arguments: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    """Read it once more. If that fails, this is an alarm."""
    await asyncio.sleep(_POLL)
    try:
        return await _read(store, arguments.host)
    except (StoreError, HostError) as error:
        return {**found, "alarms": [str(error)]}


def _news(known: dict[str, Any], found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what is not as it was: of the whole, and of each host."""
    whole = {name: found[name] for name in ("release", "rollout", "alarms")}
    if known.get("") != whole:
        yield "", whole
    for each in found["hosts"]:
        lasting = {name: value for name, value in each.items() if name != "reported"}
        if known.get(each["host"]) != lasting:
            yield each["host"], lasting


def _print_news(arguments: argparse.Namespace, each: dict[str, Any]) -> None:
    if arguments.output == "json":
        print_line(each)
        return
    if arguments.output == "yaml":
        say("---")
        print_data(each, "yaml")
        return
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    if "host" in each:
        words = f"{each['host']} {each['state']}" + (f": {each['detail']}" if each["detail"] else "")
        say(f"{when} {words}")
    elif each["rollout"]:
        rollout = each["rollout"]
        reason = f": {rollout['reason']}" if rollout["reason"] else ""
        say(f"{when} release {each['release']} {rollout['state']}, wave {rollout['wave']}{reason}")
    warn(*each.get("alarms", []))
