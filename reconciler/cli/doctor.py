"""`reconciler doctor`: what is wrong, what it means, and the command that mends it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from reconciler.cli.authority import add_policy
from reconciler.cli.output import Line, Painted, print_data, say
from reconciler.cli.parser import add_output
from reconciler.doctor.examination import Report, examine
from reconciler.doctor.facts import Unknown
from reconciler.doctor.registry import Finding
from reconciler.wording import plural

# Hits of one check that are printed one by one without -v: 500 sandboxes may have the same fault.
_SHOWN = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="PATH|ID",
        help="manifests, folders of them, or IDs of sandboxes, `web-*` for several (default: all that are watched)",
    )
    add_output(parser, "text", "json", "yaml", words="form of the output")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every finding of a check that has many")
    add_policy(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is wrong. Return 0 if nothing is, 1 if something is, 2 if something could not be looked at."""
    report = examine(arguments.words, arguments.policy)
    if arguments.output == "text":
        say(*_lines(report, verbose=arguments.verbose), color=arguments.color)
    else:
        print_data(_data(report), arguments.output)
    if report.findings:
        return 1
    return 2 if any(not each.beyond for each in report.unknown) else 0


def _lines(report: Report, *, verbose: bool) -> Iterator[Line]:
    for sign, found in (("-", report.findings), ("~", report.notes)):
        yield from _folded(sign, found, verbose=verbose)
    for each in report.unknown:
        yield Painted(f"unknown: {each.about}: {each.what}", "~", after=f": {each.why}")
    count, notes, unknown = len(report.findings), len(report.notes), len(report.unknown)
    looked = f"host, watcher and {report.sandboxes:,} {plural('sandbox', report.sandboxes)}"
    found_ = f"{count:,} {plural('finding', count)}" if count else "Nothing is wrong that can be seen"
    more = f", {notes:,} {plural('note', notes)}" * bool(notes) + f", {unknown:,} unknown" * bool(unknown)
    if count or notes or unknown:
        yield ""
    yield f"{found_}{more}: {looked}."


def _folded(sign: str, found: list[Finding], *, verbose: bool) -> Iterator[Line]:
    counts: dict[str, int] = {}
    for each in found:
        name = each.check.name
        counts[name] = counts.get(name, 0) + 1
        if verbose or counts[name] <= _SHOWN:
            word = "note: " if each.check.is_note else ""
            yield Painted(f"{word}{each.hit.about}: {name}", sign, after=f": {each.hit.what}")
            yield f"    {each.check.meaning}"
            yield f"    # {each.check.remedy}"
            yield f"    {each.hit.command}"
    for name, count in counts.items():
        if count > _SHOWN and not verbose:
            yield f"… {count - _SHOWN:,} more of {name} (-v prints them)"


def _data(report: Report) -> dict[str, Any]:
    return {
        "sandboxes": report.sandboxes,
        "findings": [_finding(each) for each in report.findings],
        "notes": [_finding(each) for each in report.notes],
        "unknown": [_unknown(each) for each in report.unknown],
    }


def _finding(each: Finding) -> dict[str, str]:
    return {
        "check": each.check.name,
        "about": each.hit.about,
        "what": each.hit.what,
        "meaning": each.check.meaning,
        "remedy": each.check.remedy,
        "command": each.hit.command,
    }


def _unknown(each: Unknown) -> dict[str, Any]:
    return {"about": each.about, "what": each.what, "why": each.why, "beyond": each.beyond}
