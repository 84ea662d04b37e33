"""`reconciler history`: what changed in sandboxes, when, why and by whom."""

from __future__ import annotations

import argparse
import re
import select
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

from reconciler.cli.moment import FORMS, read_moment
from reconciler.cli.output import Line, Painted, print_data, say, warn
from reconciler.cli.parser import add_output, checked
from reconciler.cli.terminal import aligned, columns, is_ascii
from reconciler.errors import HostError
from reconciler.history.lines import IN_FORCE, MISSING, WATCHER, Step
from reconciler.history.reader import read, sandboxes
from reconciler.history.record import CHANGE, Record
from reconciler.wording import plural, shorten, suggest, to_json

# Operations of a record that the text form shows.
_SHOWN = 6
# Seconds between two looks without an event.
_POLL = 1.0
_SIGNS = {"add": "+", "change": "~", "delete": "-"}
# Columns of what is never wrapped.
_LEAST = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "sandboxes", nargs="*", metavar="ID", help="only these sandboxes; * ? [] stand for several (default: all)"
    )
    parser.add_argument("--since", type=_moment, default=0.0, metavar="TIME", help=f"only what was since: {FORMS}")
    parser.add_argument("-n", dest="last", type=_natural, metavar="N", help="only the last N records")
    parser.add_argument("--follow", action="store_true", help="go on with what happens, until Ctrl-C")
    add_output(parser, "text", "json", "yaml", words="text, json or yaml (with --follow, json is an object a line)")


def _moment(text: str) -> float:
    return checked(read_moment, text)


def _natural(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number')
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Print records, the oldest first."""
    patterns = arguments.sandboxes or ["*"]
    for each in patterns:
        if not re.fullmatch(r"[A-Za-z0-9_.*?!\[\]-]{1,200}", each):
            raise HostError(f'"{each}" is not a valid sandbox ID, nor a pattern of one')
    if arguments.follow:
        return _follow(patterns, arguments)
    _check(patterns)
    found = _selected(read(patterns), arguments)
    if arguments.output == "text":
        say(*_Table().lines(found), color=arguments.color)
        if not found:
            warn("nothing is recorded" + (" since then" if arguments.since else ""))
    else:
        print_data({"records": [each.to_data() for each in found]}, arguments.output)
    return 0


def _check(patterns: Sequence[str]) -> None:
    """Raise HostError if nothing is recorded about a sandbox that was named in full."""
    known = sandboxes()
    for each in patterns:
        if each not in known and not set("*?[") & set(each):
            hint = (
                suggest(each, [name for name in known if name != WATCHER])
                if known
                else "nothing is recorded about any on this host"
            )
            raise HostError(f'nothing is recorded about a sandbox "{each}"; {hint}')


def _selected(found: list[Record], arguments: argparse.Namespace) -> list[Record]:
    found = [each for each in found if each.at >= arguments.since]
    if arguments.output == "text":
        found = list(_without_repeats(found))
    if arguments.last is None:
        return found
    return found[-arguments.last :] if arguments.last else []


def _without_repeats(found: Iterable[Record]) -> Iterator[Record]:
    """Yield records, but not that a manifest is in force right after the change that has applied it."""
    before: dict[str, Record] = {}
    for each in found:
        last = before.get(each.sandbox)
        before[each.sandbox] = each
        if each.event != IN_FORCE or not last or last.event != CHANGE or last.file != each.file:
            yield each


def _follow(patterns: Sequence[str], arguments: argparse.Namespace) -> int:
    from reconciler.history.follower import Follower

    if arguments.output == "yaml":
        raise HostError("--follow prints text, or an object a line: -o json")
    table = _Table()
    waiting = select.poll()
    try:
        with closing(Follower(patterns)) as follower:
            # Nothing is read from it: this is how a pipe shows that nobody reads from it any more.
            waiting.register(sys.stdout.fileno(), 0)
            if follower.fileno() >= 0:
                waiting.register(follower.fileno(), select.POLLIN)
            found = _selected(follower.read(), arguments)
            while True:
                if arguments.output == "json":
                    print(*map(_json_line, found), sep="", end="")
                else:
                    say(*table.lines(found), color=arguments.color)
                sys.stdout.flush()
                ready = dict(waiting.poll(_POLL * 1000))
                if ready.get(sys.stdout.fileno(), 0) & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                    return 0
                found = follower.read()
    except KeyboardInterrupt:
        return 130


def _json_line(record: Record) -> str:
    return to_json(record.to_data(), separators=(",", ":"), ascii_only=is_ascii(sys.stdout)) + "\n"


class _Table:
    """The records as text: a row each in columns, with the operations below it. Columns only become wider."""

    def __init__(self) -> None:
        self._widths = (0, 0, 0)

    def lines(self, records: Sequence[Record]) -> Iterator[Line]:
        """Yield lines. What is wider than the terminal is wrapped."""
        rows = [_row(each) for each in records]
        self._widths = (
            max([self._widths[0], *(len(row[0]) for row in rows)]),
            max([self._widths[1], *(len(row[1]) for row in rows)]),
            max([self._widths[2], *(len(row[2]) for row in rows)]),
        )
        most = columns(sys.stdout) or 0
        is_narrow = 0 < most < sum(self._widths) + 3 * 2 + _LEAST
        for record, row in zip(records, rows, strict=True):
            if is_narrow:
                yield from _wrapped(f"{row[0]} {row[1]}", most, "", "    ")
                yield from (line for words in row[2:] for line in _wrapped(words, most, "  ", "    "))
            else:
                head = "  ".join(f"{words:<{width}}" for words, width in zip(row, self._widths, strict=False))
                yield from _wrapped(f"{head}  {row[3]}", most, "", "    ")
            for each in _operations(record):
                yield from _painted(each, most)


def _wrapped(text: str, most: int, first: str, others: str) -> list[str]:
    """Return a text in lines of at most so many columns; as one line, if that is 0."""
    if not most:
        return [text]
    width = max(most, _LEAST)
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


def _painted(line: Painted, most: int) -> Iterator[Line]:
    text = aligned(f"{line.text}{line.after}", sys.stdout)
    if not most or len(text) <= most:
        yield line
    else:
        yield from (Painted(each, line.sign) for each in _wrapped(text, most, "", "      "))


def _row(record: Record) -> tuple[str, str, str, str]:
    """Return the time, the sandbox, why and by whom, and what became of it, as the terminal shows them."""
    time = re.sub(r"\.[0-9]+", "", record.time)
    words = ("-" if record.sandbox == WATCHER else record.sandbox, _cause(record), shorten(_result(record)))
    sandbox, cause, result = (aligned(each, sys.stdout) for each in words)
    return time, sandbox, cause, result


def _cause(record: Record) -> str:
    """Return why, and by whom."""
    by = record.by
    manifest = " ".join(filter(None, (record.file, record.revision or record.blob[:7])))
    match record.cause:
        case "by hand":
            return f"by hand: {_person(record)}" + (f" {manifest}" if manifest else "")
        case "drift":
            return "drift, made by: unknown"
        case "":
            return f"by hand: {_person(record)}" if "uid" in by else str(by.get("command", "watch"))
        case cause:
            return f"{cause} {manifest}".rstrip()


def _person(record: Record) -> str:
    by = record.by
    names = [str(by.get(each)) for each in ("login", "sudo_user", "user", "uid") if by.get(each) not in (None, "")]
    user = names[0] if names else "unknown"
    also = [str(each) for each in (by.get("terminal"), by.get("command")) if each]
    return f"{user} ({', '.join(also)})" if also else user


def _result(record: Record) -> str:
    """Return what became of it, in words."""
    if record.event == MISSING:
        return f"{record.more.get('lines')} lines are missing since {record.more.get('since')}: {record.reason}"
    words = record.result or record.event
    if record.event == CHANGE:
        took = "" if record.seconds is None else f" in {record.seconds:.1f} s"
        words += f", {record.count:,} {plural('operation', record.count)}{took}"
        if tries := record.more.get("tries"):
            words += f", after {tries} tries"
    elif record.event == IN_FORCE:
        words += ", nothing to do"
    else:
        words += "".join(f", {name.replace('_', ' ')}: {value}" for name, value in record.more.items())
    return f"{words}: {record.reason}" if record.reason else words


def _operations(record: Record) -> Iterator[Painted]:
    for each in record.steps[:_SHOWN]:
        yield _operation(each)
    shown = min(len(record.steps), _SHOWN)
    if record.event == CHANGE and record.count > shown:
        more = f"; -o json has {len(record.steps)}" if len(record.steps) > shown else ""
        sign = _SIGNS.get(record.steps[-1].action, "~") if record.steps else "~"
        yield Painted(f"  {sign} … {record.count - shown:,} more{more}", sign)


def _operation(step: Step) -> Painted:
    sign = _SIGNS.get(step.action, "~")
    words = "; ".join(filter(None, (step.fate, step.comment)))
    return Painted(f"  {sign} {step.command}", sign, after=f"      # {words}" if words else "")
