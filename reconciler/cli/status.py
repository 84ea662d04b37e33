"""`reconciler status`: print the state of all sandboxes that the watcher of this host keeps."""

from __future__ import annotations

import argparse
from typing import Any

from reconciler.cli.output import print_data, say, warn
from reconciler.cli.parser import add_output
from reconciler.watch.client import read_status
from reconciler.watch.report import format_age

_HEAD = ("SANDBOX", "DRIVER", "STATE", "LOOKED", "DRIFT 1 h", "REVISION", "DETAIL")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_output(parser, "text", "json", "yaml", words="form of the output: a table, or all that the watcher knows")


def run(arguments: argparse.Namespace) -> int:
    """Print one line per sandbox. Return 0 if all is well, else 1."""
    found = read_status()
    if arguments.output != "text":
        print_data(found, arguments.output)
    else:
        say(*_table([_HEAD, *map(_row, found["sandboxes"])]))
        warn(*found["alarms"], *found["problems"])
    good = all(each["state"] in {"converged", "draining", "paused"} and each["fresh"] for each in found["sandboxes"])
    return 0 if good and not found["alarms"] and not found["problems"] else 1


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    state = each["state"] if each["fresh"] or not each["looked"] else f"{each['state']}?"
    drift = str(each["drift_1h"]) if each["looked"] else "-"
    return (
        each["sandbox"],
        each["driver"],
        state,
        format_age(each["looked"]),
        drift,
        each["revision"] or "-",
        each["detail"],
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
