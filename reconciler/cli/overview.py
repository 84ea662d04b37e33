"""What the watcher knows, as text: a table of all sandboxes, or all about some of them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.cli import table
from reconciler.watch.report import format_age
from reconciler.wording import plural

_HEAD = ("SANDBOX", "DRIVER", "STATE", "LOOKED", "DRIFT 1 h", "REVISION")
_GOOD = {"converged", "draining", "paused"}
# Stands for all states of a sandbox that is not as it should be.
BAD = "bad"
# Servers, and lines of each other list, that are printed of one sandbox.
_SERVERS, _LISTED = 40, 20
# Characters of the ID of a text.
_ABBREVIATED = 12


def selected(arguments: argparse.Namespace, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sandboxes in the states that are asked for."""
    states = arguments.state
    return [
        each
        for each in found["sandboxes"]
        if not states or each["state"] in states or (BAD in states and not is_good(each))
    ]


def is_good(each: dict[str, Any]) -> bool:
    """Return whether a sandbox is as it should be, or left alone on purpose."""
    return each["state"] in _GOOD and bool(each["fresh"])


def lines(arguments: argparse.Namespace, found: dict[str, Any]) -> list[str]:
    """Return the text about the sandboxes that are asked for."""
    sandboxes = selected(arguments, found)
    if not arguments.ids:
        return _overview(sandboxes)
    blocks = [list(_details(each)) for each in sandboxes]
    return [line for number, block in enumerate(blocks) for line in ([""] * bool(number) + block)]


def _overview(sandboxes: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each sandbox below a heading; more lines on a narrow terminal."""
    return table.render(_HEAD, list(map(_row, sandboxes)), list(map(_detail, sandboxes)))


def state_of(each: dict[str, Any]) -> str:
    """Return the state of a sandbox, with a question mark if the last look is older than it should be."""
    return str(each["state"]) if each["fresh"] or not each["looked"] else f"{each['state']}?"


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    drift = str(each["drift_1h"]) if each["looked"] else "-"
    age = format_age(each["looked"])
    return each["sandbox"], each["driver"], state_of(each), age, drift, each["revision"] or "-"


def _detail(each: dict[str, Any]) -> str:
    return "; ".join(filter(None, (_lent(each), _told(each))))


def _told(each: dict[str, Any]) -> str:
    """Return the detail, with the seconds that are left if a change waits to be confirmed."""
    left = each["confirm_by"] - time.time() if each.get("confirm_by") else 0.0
    return left_words(str(each["detail"]), left)


def left_words(words: str, left: float) -> str:
    """Return words about a change that waits to be confirmed, with the seconds that are left for that."""
    return f"{words} ({left:.0f} s left)" if left > 0 else words


def _lent(each: dict[str, Any]) -> str:
    """Return that a machine is lent, if it is."""
    since = f"{format_age(each['lent'])}" if each["lent"] else ""
    return f"lent to another command, which began {since}; nothing is looked at meanwhile" if since else ""


def _details(each: dict[str, Any]) -> Iterator[str]:
    """Yield all that is known of one sandbox, line by line."""
    yield each["sandbox"]
    yield from table.facts(list(_facts(each)), sys.stdout)
    if each["ipvs"]:
        yield from _connections(each["ipvs"])


def _facts(each: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "driver", each["driver"]
    yield "state", f"{state_of(each)} since {_moment(each['since'])}"
    if each["detail"]:
        yield "detail", _told(each)
    if lent := _lent(each):
        yield "lent", lent
    yield "manifest", each["file"]
    yield "revision", _revision(each)
    took = f", it took {each['took']:.3f} s" if each["looked"] else ""
    yield "last look", f"{_moment(each['looked'])}{took}"
    yield "full look", _moment(each["full_looked"])
    last = f", the last {_moment(each['drifted'])}" if each["drifted"] else ""
    repairs = f"{each['repairs']:,} {plural('operation', each['repairs'])} repaired since the watcher started"
    yield "drift", f"{each['drift_1h']:,} in the last hour{last}; {repairs}"
    fights = each["fights"]
    yield "fights", "; ".join(fights[:_LISTED]) + _more(len(fights) - _LISTED) or "none"
    if ipvs := each["ipvs"]:
        yield "draining", "none" if not ipvs["draining"] else _drains(ipvs["draining"])
        yield "IPVS", _sum(ipvs)


def _revision(each: dict[str, Any]) -> str:
    # Git itself abbreviates like this.
    blob = f"text {each['blob'][:_ABBREVIATED]}" if each["blob"] else ""
    return ", ".join(filter(None, (each["revision"], blob))) or "none"


def _moment(when: float) -> str:
    """Return when a time was, and how long ago; `never` for 0."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(when))}, {format_age(when)}" if when else "never"


def _more(count: int) -> str:
    return f"; … {count:,} more (-o json has all)" if count > 0 else ""


def _drains(drains: Sequence[dict[str, Any]]) -> str:
    words = [
        f"{each['server']} of {each['service']}: {each['connections']:,} "
        f"{plural('connection', each['connections'])} left, {_time_left(each['deadline'])}"
        for each in drains[:_LISTED]
    ]
    return "; ".join(words) + _more(len(drains) - _LISTED)


def _time_left(deadline: float) -> str:
    left = max(0, int(deadline - time.time()))
    return f"deleted in {left:,} s at the latest ({time.strftime('%H:%M:%S', time.localtime(deadline))})"


def _sum(ipvs: dict[str, Any]) -> str:
    services = ipvs["services"]
    if not ipvs["read"]:
        return "the connections are not known yet: the next quick look reads them"
    if not services:
        return "no connections are known: the manifest has no service, or the kernel lists far more than the manifest"
    active, inactive = (sum(each[kind] for each in services) for kind in ("active", "inactive"))
    words = f"{active:,} active and {inactive:,} inactive {plural('connection', inactive)}"
    return f"{words} of {len(services):,} {plural('service', len(services))}, read {format_age(ipvs['read'])}"


def _connections(ipvs: dict[str, Any]) -> Iterator[str]:
    """Yield a table of the services and their servers."""
    rows: list[tuple[str, ...]] = []
    for service in ipvs["services"]:
        rows.append((service["service"], "", str(service["active"]), str(service["inactive"])))
        for server in service["servers"]:
            counts = ("-" if server[kind] is None else str(server[kind]) for kind in ("active", "inactive"))
            rows.append((f"  {server['server']}", str(server["weight"]), *counts))
    if rows:
        yield from table.render(("SERVICE, SERVER", "WEIGHT", "ACTIVE", "INACTIVE"), rows[:_SERVERS])
    if len(rows) > _SERVERS:
        yield f"… {len(rows) - _SERVERS:,} more (-o json has all)"
