"""YAML text → plain data, within bounds and without surprises; and where values stand in the text.

A builder over libyaml's events. PyYAML's own composer recurses in C (100,000 open brackets crash the process), and its
constructor retypes scalars by YAML 1.1. Here a MAC address, a time, `on`, `0777` and `1e3` stay text; only what is a
number, a boolean or null in every version of YAML and in JSON becomes one. Text becomes an integer only if the integer
is written exactly so. Thus a field of text can accept an unquoted `12345`.

Tags, merge keys and duplicate keys are errors. Each use of an alias counts as much as the value that it repeats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from reconciler.manifest.libyaml import Parser, parse, unreadable
from reconciler.values import NamedTuple

# It loads what follows without the rest of PyYAML.
# isort: split
from yaml.error import MarkedYAMLError, YAMLError
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from reconciler.manifest.finding import Path

# Bounds of one file. 20,000 IPVS rules are 3 MB and 150,000 nodes; a manifest nests 6 levels.
MAX_DEPTH = 32
MAX_NODES = 2_000_000
MAX_DOCUMENTS = 500

# Line, column and end column, from 0.
Span = tuple[int, int, int]

INTEGER = re.compile(r"(?:0|-?[1-9][0-9]{0,17})\Z")
BYTE_ORDER_MARK = "\ufeff"
_MARK_WITHIN = (
    "a byte order mark (U+FEFF), which editors do not show; it may stand only at the beginning of a file, so delete it"
)
_NAMED: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}


class ComposeError(Exception):
    """The text is not acceptable YAML: why, and the line and column, from 0."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


class Location(NamedTuple):
    """Where a value and its key stand. An item of a list has no key.

    `literal`: the text of the value, if it follows line by line (`|`).
    """

    value: Span
    key: Span | None
    literal: str | None = None

    def below(self, lines: int) -> Location:
        """Return the location so many lines further down."""
        spans = [span and (span[0] + lines, *span[1:]) for span in (self.value, self.key)]
        return Location(spans[0] or self.value, spans[1], self.literal)


def compose(text: str) -> list[Any]:
    """Return the documents of a text as dicts, lists, str, int, bool and None. ComposeError if it is not acceptable."""
    if BYTE_ORDER_MARK in text:
        raise ComposeError(_MARK_WITHIN, *_line_of(text, text.index(BYTE_ORDER_MARK)))
    builder = _Builder()
    try:
        parser = Parser(text)
        while not isinstance(event := parser.get_event(), StreamEndEvent):
            if isinstance(event, DocumentStartEvent):
                if len(builder.documents) == MAX_DOCUMENTS:
                    raise _error(f"more than {MAX_DOCUMENTS} documents; write several files", event)
                builder.document(parser.get_event)
    except MarkedYAMLError as error:
        raise _syntax_error(text, error) from None
    except YAMLError as error:
        character, position = unreadable(error)
        raise ComposeError(
            f"unacceptable character #x{character:04x}",
            *_line_of(text, len(text.encode()[:position].decode(errors="ignore"))),
        ) from None
    return builder.documents


def _syntax_error(text: str, error: MarkedYAMLError) -> ComposeError:
    from reconciler.manifest.mistakes import describe, find_mistake

    mark = error.problem_mark or error.context_mark
    return ComposeError(*((mark and find_mistake(text, mark.line, mark.column)) or describe(text, error)))


def _line_of(text: str, position: int) -> tuple[int, int]:
    """Return the line and column, from 0, of a character."""
    return text.count("\n", 0, position), position - (text.rfind("\n", 0, position) + 1)


def _error(message: str, event: Any) -> ComposeError:
    return ComposeError(message, event.start_mark.line, event.start_mark.column)


class _Builder:
    """Builds documents without recursion. Counts the nodes of the whole file, those of an alias at each use."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self._nodes = 0

    def document(self, get_event: Callable[[], Any]) -> None:
        """Read the events of one document, up to its end. ComposeError if it is not acceptable."""
        root: list[Any] = []
        container: Any = root
        in_mapping = False
        key: str | None = None
        stack: list[tuple[Any, bool, str | None, int]] = []
        # Anchor → value and its number of nodes. Only complete values are in it, so that no value can contain itself.
        anchors: dict[str, tuple[Any, int]] = {}
        nodes = self._nodes
        while (kind := type(event := get_event())) is not DocumentEndEvent:
            # Most events are scalars.
            if kind is ScalarEvent:
                if in_mapping and key is None:
                    key = event.value
                    # Nearly all keys need no check.
                    if not key or event.tag is not None or key in container or key == "<<":
                        _check_key(container, event)
                    continue
                value = event.value if event.style and event.tag is None else _plain(event)
                if event.anchor:
                    anchors[event.anchor] = (value, 1)
                size = 1
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                value, (container, in_mapping, anchor, start) = container, stack.pop()
                if anchor:
                    anchors[anchor] = (value, nodes - start)
                continue
            elif in_mapping and key is None:
                _check_key(container, event)
                continue
            elif kind is AliasEvent:
                if event.anchor not in anchors:
                    raise _error(f"alias *{event.anchor} refers to no complete value above it", event)
                value, size = anchors[event.anchor]
                size += 1
            else:
                value, size = _open(event, len(stack)), 1
            nodes += size
            if nodes > MAX_NODES:
                raise _error(f"more than {MAX_NODES:,} values, counting each use of an alias", event)
            if in_mapping:
                container[key], key = value, None
            else:
                container.append(value)
            if kind is MappingStartEvent or kind is SequenceStartEvent:
                # Until this value is complete, its anchor has none, not even that of an earlier anchor of that name.
                anchors.pop(event.anchor, None)
                stack.append((container, in_mapping, event.anchor, nodes))
                container, in_mapping = value, kind is MappingStartEvent
        self._nodes = nodes
        self.documents.append(root[0])


def _open(event: Any, depth: int) -> dict[str, Any] | list[Any]:
    if event.tag is not None:
        raise _error(f"tags are not supported ({event.tag})", event)
    if depth >= MAX_DEPTH:
        raise _error(f"nested deeper than {MAX_DEPTH} levels", event)
    return {} if type(event) is MappingStartEvent else []


def _check_key(container: dict[str, Any], event: Any) -> None:
    if type(event) is not ScalarEvent:
        what = "; a `{{ … }}` of a template must be filled in first" if type(event) is MappingStartEvent else ""
        raise _error(f"a key must be plain text, not a list, a mapping or an alias{what}", event)
    key: str = event.value
    if event.tag is not None:
        raise _error(f"tags are not supported ({event.tag})", event)
    if key == "<<" and not event.style:
        raise _error("merge keys (<<) are not supported; write the fields out", event)
    if key in container:
        raise _error(f'duplicate key "{key}"', event)


def _plain(event: Any) -> Any:
    text: str = event.value
    if event.tag is not None:
        raise _error(f"tags are not supported ({event.tag})", event)
    if text in _NAMED:
        return _NAMED[text]
    # Few scalars are numbers; this excludes most others, such as addresses, without the regular expression.
    if (text.isdecimal() or text[0] == "-") and INTEGER.match(text):
        return int(text)
    return text


def locate(text: str, wanted: Mapping[int, Iterable[Path]]) -> dict[int, dict[Path, Location]]:
    """Return where values stand in a text that `compose` accepts: document → path → location.

    `wanted`: the paths of each document. The result has those that exist, and all paths above them. `compose` does not
    store locations, so that only a problem costs this second pass over the text.
    """
    found: dict[int, dict[Path, Location]] = {}
    begins = _beginnings(text) if max(wanted, default=0) else ((0, 0),)
    for document, paths in wanted.items():
        index, line = begins[document]
        end = begins[document + 1][0] if document + 1 < len(begins) else None
        events: Iterator[Any] = parse(text[index:end])
        while not isinstance(next(events), DocumentStartEvent):
            pass
        above = {path[:length] for path in paths for length in range(len(path) + 1)}
        here: dict[Path, Location] = {}
        _locate(events, next(events), (), None, above, here)
        found[document] = {path: each.below(line) for path, each in here.items()} if line else here
    return found


@lru_cache(maxsize=8)
def _beginnings(text: str) -> tuple[tuple[int, int], ...]:
    """Return where the line of each document begins that its first marker or value is in: index and number, from 0.

    The manifests of a file are located one by one, and it may have hundreds: only their part is looked through.
    """
    begins = []
    events: Iterator[Any] = parse(text)
    for event in events:
        if type(event) is DocumentStartEvent:
            mark: Any = event.start_mark
            begins.append((mark.index - mark.column, mark.line))
    return tuple(begins)


def _locate(
    events: Iterator[Any], event: Any, path: Path, key: Any, wanted: set[Path], found: dict[Path, Location]
) -> None:
    """Read events from a value on, until it ends or everything wanted is found."""
    # An anchor may stand some lines above the `|`.
    literal = event.value if isinstance(event, ScalarEvent) and event.style == "|" and not event.anchor else None
    found[path] = Location(_span(event), _span(key) if key else None, literal)
    if isinstance(event, MappingStartEvent):
        while len(found) < len(wanted) and not isinstance(name := next(events), MappingEndEvent):
            child = (*path, name.value)
            value = next(events)
            _locate(events, value, child, name, wanted, found) if child in wanted else _skip(events, value)
    elif isinstance(event, SequenceStartEvent):
        index = 0
        while len(found) < len(wanted) and not isinstance(item := next(events), SequenceEndEvent):
            child = (*path, index)
            _locate(events, item, child, None, wanted, found) if child in wanted else _skip(events, item)
            index += 1


def _skip(events: Iterator[Any], event: Any) -> None:
    depth = 0
    while True:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth == 0:
            return
        event = next(events)


def _span(event: Any) -> Span:
    """Return the span of an event; of one that covers several lines, that of its first character."""
    start, end = event.start_mark, event.end_mark
    return start.line, start.column, end.column if end.line == start.line else start.column + 1
