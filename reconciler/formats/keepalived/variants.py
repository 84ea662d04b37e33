"""A keepalived.conf as each host may read it. Lines that begin with `@ID` are only for hosts with that ID.

If the ID is not chosen, a virtual server is imported if it is the same to hosts with each ID that a line names, and to
others: keepalived takes the name of its host for the ID, which is not known here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from reconciler.formats.keepalived.configuration import Configuration, ConfigurationReader, Imported, Message
from reconciler.formats.keepalived.reader import CHARACTERS_MAX, FindIncluded, Reader
from reconciler.formats.keepalived.statements import Position, Report, StatementError
from reconciler.model.ipvs import Service, Timeouts
from reconciler.values import NamedTuple

IDS_MAX = 64
_TOO_MANY = "too many configuration IDs to compare what each has; choose one by --config-id"

# The position of a virtual server, and its number among those of the same line.
_Place = tuple[Position, int]


class Found(NamedTuple):
    """The services in their order, each with the position of its virtual server; and the timeouts with theirs."""

    services: list[tuple[Position, Service]]
    timeouts: tuple[Position, Timeouts] | None


class _Variant(NamedTuple):
    """The configuration of the hosts with one ID (None: one that no line names), or the error that ended it."""

    config_id: str | None
    configuration: Configuration
    error: StatementError | None

    def virtuals(self) -> dict[_Place, Imported]:
        """Return the virtual servers by their places."""
        counts: Counter[Position] = Counter()
        places = {}
        for each in self.configuration.virtuals:
            position = each.statement.position
            places[position, counts[position]] = each
            counts[position] += 1
        return places


def parse(
    file: str,
    text: str,
    find_included: FindIncluded,
    on_problem: Report,
    on_skipped: Report,
    config_id: str | None = None,
) -> Found:
    """Read a text and what it includes, for a host with a configuration ID (None: not known).

    Problems are reported to `on_problem`. Parts that are not imported are reported to `on_skipped`, a whole block once.
    """
    on_problem, on_skipped = _each_once(on_problem), _each_once(on_skipped)
    variants = {}
    # Another ID may bring lines with further ones.
    waiting: list[str | None] = [config_id]
    characters = 0
    while waiting:
        chosen = waiting.pop()
        reader = Reader(find_included, chosen)
        variants[chosen] = _read(reader, file, text, chosen)
        characters += reader.characters
        if config_id is None:
            waiting += sorted(reader.config_ids - variants.keys() - set(waiting))
        if len(variants) + len(waiting) > IDS_MAX + 1 or (characters > CHARACTERS_MAX and waiting):
            on_problem(Position(file, 1), _TOO_MANY)
            return Found([], None)
    return _Merging(list(variants.values()), on_problem, on_skipped).found()


def _each_once(report: Report) -> Report:
    reported: set[Message] = set()

    def report_once(position: Position, message: str) -> None:
        if (position, message) not in reported:
            reported.add((position, message))
            report(position, message)

    return report_once


def _read(reader: Reader, file: str, text: str, config_id: str | None) -> _Variant:
    configuration = Configuration()
    try:
        ConfigurationReader(configuration).read(reader.read(file, text))
    except StatementError as error:
        return _Variant(config_id, configuration, error)
    return _Variant(config_id, configuration, None)


class _Merging:
    """What is the same in all variants."""

    def __init__(self, variants: Sequence[_Variant], on_problem: Report, on_skipped: Report) -> None:
        self._variants = variants
        self._ids = ", ".join(sorted(each.config_id for each in variants if each.config_id))
        self._on_problem, self._on_skipped = on_problem, on_skipped

    def found(self) -> Found:
        """Return the services and timeouts; nothing if a variant cannot be read."""
        self._report_common()
        if any(each.error for each in self._variants):
            return Found([], None)
        services = [(position, each) for position, found in self._services() for each in found]
        return Found(services, self._timeouts())

    def _timeouts(self) -> tuple[Position, Timeouts] | None:
        first, *others = dict.fromkeys(each.configuration.timeouts for each in self._variants)
        for position, _ in filter(None, [first, *others] if others else ()):
            self._on_skipped(position, f"lvs_timeouts: {self._reason()}")
        return None if others else first

    def _reason(self) -> str:
        return f"not imported because it depends on the configuration ID; choose one by --config-id: {self._ids}"

    def _report_common(self) -> None:
        """Report what belongs to no virtual server."""
        configurations = [each.configuration for each in self._variants]
        problems: Counter[Message] = Counter(
            chain.from_iterable(dict.fromkeys(each.problems) for each in configurations)
        )
        for (position, message), count in problems.items():
            if count == len(configurations):
                self._on_problem(position, message)
            else:
                self._on_skipped(position, f"{message}, with some configuration IDs")
        for position, message in dict.fromkeys(chain.from_iterable(each.notes for each in configurations)):
            self._on_skipped(position, message)
        for error in filter(None, (each.error for each in self._variants)):
            self._on_problem(error.position, str(error))

    def _services(self) -> list[tuple[Position, tuple[Service, ...]]]:
        """Return the services of each virtual server that all variants have alike. Report the others."""
        found = []
        variants = [each.virtuals() for each in self._variants]
        for place in dict.fromkeys(chain.from_iterable(variants)):
            each = [variant[place] for variant in variants if place in variant]
            position, first = place[0], each[0]
            same = all((other.services, other.problems) == (first.services, first.problems) for other in each)
            if len(each) < len(variants) or not same:
                self._on_skipped(position, f"{first.statement}: {self._reason()}")
                continue
            for at, message in first.problems:
                self._on_problem(at, message)
            for at, message in dict.fromkeys(chain.from_iterable(other.notes for other in each)):
                self._on_skipped(at, message)
            found.append((position, first.services))
        return found
