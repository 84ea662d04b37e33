"""Files in notations of other programs → the data of one manifest, and the position of all that is wrong or skipped."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, assert_never

from reconciler.formats import netplan, nmstate
from reconciler.formats.entry import Found, Link, Thing, TooManyError
from reconciler.formats.ip_json import listing
from reconciler.formats.ipvsadm.rules import parse_rules, service_lines
from reconciler.formats.kata.fields import FieldError
from reconciler.formats.kata.interface import read_interface
from reconciler.formats.kata.route import is_route, read_route
from reconciler.formats.keepalived import variants
from reconciler.formats.keepalived.statements import Position
from reconciler.formats.networkd import network
from reconciler.formats.networkd.syntax import Document
from reconciler.manifest.beneath import Roots, Source, named
from reconciler.manifest.compose import ComposeError, Location, Span, compose, locate
from reconciler.manifest.files import MAX_BYTES, STDIN, distinct, file_problem, is_stream, read_text, reason_of
from reconciler.manifest.finding import Finding, Path, path_text
from reconciler.manifest.imported import NOTHING, Imported
from reconciler.manifest.load import syntax_problem
from reconciler.manifest.notation import (
    INCLUDED,
    IP,
    IPVSADM,
    KATA,
    KEEPALIVED,
    NETPLAN,
    NETWORKD,
    NMSTATE,
    check_beginning,
    is_networkd,
    recognise,
)
from reconciler.manifest.place import DocumentFindings, problems, text_problem
from reconciler.model.address import parse_prefix
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import Route
from reconciler.model.rule import Rule

_NOTHING = {
    KATA: "contains no interface and no route",
    IPVSADM: "contains no rule",
    KEEPALIVED: "contains no virtual server",
}
# A listing may have nothing beside others.
_LISTINGS = (KATA, IP)
_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def read(files: Iterable[str], notation: str | None = None, config_id: str | None = None) -> Imported:
    """Read files; `-` is standard input. Without a notation, recognise that of each file.

    `config_id`: the ID of a host, for which a keepalived.conf may have lines of its own.
    """
    imported = Imported()
    # networkd takes the first file that matches an interface, by their names.
    for file in sorted(distinct(map(named, files)), key=_rank):
        _read_file(file, notation, config_id, imported)
    return imported


def _check_name(path: str) -> None:
    """Raise ValueError if a file is a drop-in of networkd, which says nothing without the file that it is for."""
    folder, name = os.path.split(path)
    parent = os.path.basename(folder)
    if name.endswith(".conf") and parent.endswith((".network.d", ".netdev.d")):
        raise ValueError(f"is a drop-in; name {parent.removesuffix('.d')}, with which its drop-ins are read")


def _rank(file: Source) -> str:
    name = os.path.basename(file.path)
    return name if name.endswith(".network") else ""


def _read_file(file: Source, notation: str | None, config_id: str | None, imported: Imported) -> None:
    name = "<stdin>" if file.path == STDIN else file.path
    try:
        text = read_text(file).replace("\r\n", "\n")
        _check_name(file.path)
        if notation:
            check_beginning(text)
        notation = notation or recognise(text)
    except (OSError, ValueError) as error:
        imported.wrong.append(file_problem(name, reason_of(error)))
        return
    imported.lines[name] = text.split("\n")
    before, skipped = imported.count(), len(imported.skipped)
    if notation == KATA:
        _read_kata(name, text, imported)
    elif notation == IPVSADM:
        _read_rules(name, text, imported)
    elif notation == KEEPALIVED:
        _read_keepalived(file, name, text, config_id, imported)
    elif notation == NETWORKD:
        _read_networkd(file, name, text, imported)
    else:
        _read_data(name, listing.separate(text) if notation == IP else [(0, text)], _READERS[notation], imported)
    if imported.count() == before:
        problem = file_problem(name, _NOTHING.get(notation, NOTHING))
        listed = notation in _LISTINGS or len(imported.skipped) > skipped
        (imported.empty if listed and notation != KEEPALIVED else imported.wrong).append(problem)


def _read_kata(name: str, text: str, imported: Imported) -> None:
    # Unlike JSON, YAML allows no tab before the first bracket.
    start = len(text) - len(text.lstrip())
    text = text[:start].replace("\t", " ") + text[start:]
    try:
        documents = compose(text)
    except ComposeError as error:
        imported.wrong.append(syntax_problem(name, text, error))
        return
    items = {number: dict(_items(document)) for number, document in enumerate(documents)}
    locations = locate(text, {number: each.keys() for number, each in items.items() if each})
    by_document = []
    for number, each in items.items():
        findings: list[Finding] = []
        for path, item in each.items():
            _read_item(Position(name, locations[number][path].value[0] + 1), path, item, findings, imported)
        by_document.append(DocumentFindings(number, findings))
    imported.wrong += problems(name, text, by_document)


def _items(document: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the objects of a document: one, or those of an array. `null` has none: commands print it for no object."""
    if isinstance(document, list):
        yield from (((index,), item) for index, item in enumerate(document))
    elif document is not None:
        yield (), document


def _read_item(position: Position, path: Path, item: Any, findings: list[Finding], imported: Imported) -> None:
    try:
        if not is_route(item):
            imported.interfaces.append((position, read_interface(item)))
            return
        route = read_route(item)
        imported.routes.append((position, route))
    except FieldError as error:
        findings.append(Finding((*path, error.field) if error.field else path, error.message))
        return
    dest = item["dest"]
    if "/" in dest and parse_prefix(dest) != route.dest:
        imported.add_skipped(position, f"dest {dest}: imported as {route.dest}, without the host bits")


def _read_data(
    name: str, parts: Iterable[tuple[int, str]], reader: Callable[[Any, Found], None], imported: Imported
) -> None:
    """Read the parts of a file of JSON or YAML, each with the number of lines above it, document by document."""
    for above, text in parts:
        try:
            documents = compose(text)
        except ComposeError as error:
            error.line += above
            imported.wrong.append(syntax_problem(name, "\n".join(imported.lines[name]), error))
            continue
        by_document = {number: Found() for number in range(len(documents))}
        for number, found in by_document.items():
            found.left = imported.left
            try:
                reader(documents[number], found)
                if reader is listing.read:
                    _drop_listed(found, imported)
            except TooManyError as error:
                imported.wrong.append(file_problem(name, str(error)))
                return
            imported.left = found.left
        locations = locate(text, {number: list(_paths(found)) for number, found in by_document.items()})
        for number, found in by_document.items():
            moved = {path: each.below(above) for path, each in locations.get(number, {}).items()}
            _add_found(name, found, moved, imported)


def _drop_listed(found: Found, imported: Imported) -> None:
    """Leave out what another listing of `ip` has as well, and routes that the kernel never looks at."""
    kept, again = [], 0
    for path, thing in found.things:
        first = thing if isinstance(thing, Link) else imported.listed.setdefault((type(thing), thing.key), thing)
        if first is thing:
            kept.append((path, thing))
        elif first == thing:
            again += 1
        else:
            found.skip(path, "another one with the same destination, table and metric comes first")
    found.things = kept
    if again:
        found.skip((), f"already listed before: {again:,}")


def _paths(found: Found) -> Iterator[Path]:
    for each in (found.things, found.skipped, found.wrong):
        yield from (path for path, _ in each)


def _add_found(name: str, found: Found, locations: Mapping[Path, Location], imported: Imported) -> None:
    """Add what one document contains, with the positions of its paths."""

    def at(path: Path) -> Span:
        while path and path not in locations:
            path = path[:-1]
        location = locations.get(path)
        return (location.key or location.value) if location else (0, 0, 1)

    for path, thing in found.things:
        _add_thing(imported, Position(name, at(path)[0] + 1), thing)
    for path, message in found.skipped:
        words = f"{path_text(path)}: {message}" if path else message
        imported.add_skipped(Position(name, at(path)[0] + 1), words)
    for path, message in found.wrong:
        imported.wrong.append(text_problem(name, imported.lines[name], at(path), path_text(path), message))
    imported.add_found(name, found)


def _read_networkd(file: Source, name: str, text: str, imported: Imported) -> None:
    """Read a file of networkd, and its drop-ins beside it."""
    found = Found(left=imported.left)
    document = Document(found)
    document.read(name, text)
    try:
        for dropin, part in _dropins(file, len(text), imported):
            document.read(dropin, part)
    except ValueError as error:
        imported.wrong.append(file_problem(name, str(error)))
        return
    try:
        network.read_file(document, name, imported.matched)
    except TooManyError as error:
        imported.wrong.append(file_problem(name, str(error)))
        return
    imported.left = found.left

    def at(path: Path) -> Position:
        return Position(*(document.place(path) or (name, 1)))

    for path, thing in found.things:
        _add_thing(imported, at(path), thing)
    for path, message in found.skipped:
        imported.add_skipped(at(path), f"{path_text(path)}: {message}" if path else message)
    for path, message in found.wrong:
        imported.add_problem(at(path), message, path_text(path))
    imported.add_found(name, found)


def _dropins(file: Source, size: int, imported: Imported) -> Iterator[tuple[str, str]]:
    """Yield the drop-ins of a file of so many characters. ValueError if one cannot be read, or if all are too large."""
    if is_stream(file.path):
        return
    pattern = f"{glob.escape(os.path.basename(file.path))}.d/*.conf"
    for name, text in _find(imported, file, pattern, file.path, _read_dropin):
        size += len(text)
        if size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB with its drop-ins")
        yield name, text


def _read_dropin(file: Source, mode: int) -> str:
    del mode
    text = read_text(file).replace("\r\n", "\n")
    if not is_networkd(text):
        raise ValueError("does not begin as a drop-in of networkd does: with the header of a section")
    return text


def _add_thing(imported: Imported, position: Position, thing: Thing) -> None:
    """Add a thing to those of its kind."""
    match thing:
        case Link():
            imported.links.append((position, thing))
        case Route():
            imported.routes.append((position, thing))
        case Rule():
            imported.rules.append((position, thing))
        case Neighbour():
            imported.neighbours.append((position, thing))
        case _:
            assert_never(thing)


def _read_rules(name: str, text: str, imported: Imported) -> None:
    services = parse_rules(text, lambda line, message: imported.add_problem(Position(name, line), message))
    # If a line is wrong, nothing is used.
    imported.services += [
        (Position(name, line), each) for line, each in zip(service_lines(text), services, strict=False)
    ]


def _read_keepalived(file: Source, name: str, text: str, config_id: str | None, imported: Imported) -> None:
    find_included = partial(_find, imported, file, read=_read_included)
    services, timeouts = variants.parse(
        name, text, find_included, imported.add_problem, imported.add_skipped, config_id
    )
    imported.services += services
    if timeouts:
        imported.timeouts.append(timeouts)


def _find(
    imported: Imported, top: Source, pattern: str, by: str, read: Callable[[Source, int], str]
) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file that matches a pattern. ValueError if one cannot be read.

    `by`: the file with the `include`; the pattern starts from its folder. `read`: reads a file of a
    mode. What matches is beneath the folder of `top`.
    """
    with Roots() as roots:
        for file in roots.glob(Source(os.path.join(os.path.dirname(by), pattern), top.roots)):
            # systemd takes a file that is masked so for an empty one, and keepalived finds nothing in it.
            if os.path.realpath(file.path) == os.devnull:
                continue
            try:
                mode = roots.stat(file).st_mode
                if stat.S_ISDIR(mode):
                    continue
                text = read(file, mode)
            except (OSError, ValueError) as error:
                raise ValueError(f"{file.path}: {reason_of(error)}") from None
            imported.lines[file.path] = text.split("\n")
            yield file.path, text


def _read_included(file: Source, mode: int) -> str:
    if stat.S_ISREG(mode) and mode & _EXECUTABLE:
        raise ValueError("keepalived does not include a file that can be executed; change its mode")
    text = read_text(file).replace("\r\n", "\n")
    if not INCLUDED.match(text):
        raise ValueError("does not begin as a part of a keepalived.conf does")
    return text


# The notations that are JSON or YAML, but for that of kata-runtime, of which each problem has a place of its own.
_READERS: dict[str, Callable[[Any, Found], None]] = {IP: listing.read, NETPLAN: netplan.read, NMSTATE: nmstate.read}
