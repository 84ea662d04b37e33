"""`reconciler status --watch`: what the watcher knows, as it changes, until a signal ends it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from reconciler.cli.output import Screen, flush, print_data, print_line, say, warn
from reconciler.cli.overview import lines, selected, state_of
from reconciler.errors import HostError
from reconciler.watch.client import read_status

# Seconds between two questions to the watcher.
_POLL = 0.5
# What changes with each look, and in a while by itself: none of it is news.
_VOLATILE = {"looked", "full_looked", "took", "drift_1h", "ipvs"}
# The state of a sandbox that is not watched any more.
_GONE = "gone"


class Follower:
    """Shows the picture on the screen of a terminal; elsewhere, and as data, prints what changes."""

    def __init__(self, arguments: argparse.Namespace, found: dict[str, Any]) -> None:
        self._arguments, self._found = arguments, found
        # What was printed of each sandbox, and of the whole; those of the sandboxes that are in the wanted states.
        self._known: dict[str, dict[str, Any]] = {}
        self._wanted: set[str] = set()
        self._notes: dict[str, Any] = {"alarms": [], "problems": []}

    def run(self) -> dict[str, Any]:
        """Show what the watcher knows until a signal comes; return the last of it."""
        try:
            if self._arguments.output == "text" and Screen.is_possible():
                with Screen() as screen:
                    while True:
                        screen.draw(self._picture())
                        self._read_again()
            while True:
                for each in self._news():
                    self._print(each)
                flush()
                self._read_again()
        except KeyboardInterrupt:
            return self._found

    def _read_again(self) -> None:
        """Ask once more. If there is no answer, that is an alarm, as the watcher may be restarted."""
        time.sleep(_POLL)
        try:
            self._found = read_status(self._arguments.ids)
        except HostError as error:
            self._found = {**self._found, "alarms": [str(error)]}

    def _picture(self) -> list[str]:
        notes = [*self._found["alarms"], *self._found["problems"]]
        # What is below may be cut.
        return [*notes, *([""] * bool(notes)), *lines(self._arguments, self._found)]

    def _news(self) -> Iterator[dict[str, Any]]:
        """Yield what is not as it was: alarms and problems, and sandboxes that are, or were, in the wanted states."""
        notes = {name: self._found[name] for name in self._notes}
        if notes != self._notes:
            self._notes = notes
            yield notes
        before, self._known = self._known, {each["sandbox"]: each for each in self._found["sandboxes"]}
        had, self._wanted = self._wanted, {each["sandbox"] for each in selected(self._arguments, self._found)}
        for name, each in self._known.items():
            if name in had | self._wanted and _lasting(each) != _lasting(before.get(name, {})):
                yield each
        yield from ({"sandbox": name, "state": _GONE} for name in sorted(had - self._known.keys()))

    def _print(self, each: dict[str, Any]) -> None:
        form = self._arguments.output
        if form == "json":
            print_line(each)
        elif form == "yaml":
            say("---")
            print_data(each, form)
        elif "sandbox" not in each:
            warn(*each["alarms"], *each["problems"])
        else:
            when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            state = state_of(each) if "fresh" in each else each["state"]
            say(f"{when} {each['sandbox']} {state}" + (f": {each['detail']}" if each.get("detail") else ""))


def _lasting(each: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in each.items() if name not in _VOLATILE}
