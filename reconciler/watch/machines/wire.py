"""Values between the two processes, each with its length in front.

What the watcher says is pickled: whoever starts a process is trusted by it. What the process of the machines says is
JSON, and must be one of a closed set of named tuples whose fields have the types of their annotations: it reads what
guests have written, and nothing that it has become by that is run here.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Any, BinaryIO, NoReturn, get_args, get_origin, get_type_hints

# Bytes of a report. The longest have a listing of IPVS, which `watch.traffic` bounds: 20,000 rules have 4 MB.
LONGEST = 64 << 20
_HEAD = 4


def pack(order: object) -> bytes:
    """Return an order with its length in front."""
    body = io.BytesIO()
    pickler = pickle.Pickler(body, pickle.HIGHEST_PROTOCOL)
    # Policies have mappings that cannot be changed.
    pickler.dispatch_table = {MappingProxyType: lambda each: (_unchangeable, (dict(each),))}
    pickler.dump(order)
    return _framed(body.getvalue())


def orders(channel: BinaryIO) -> Iterator[object]:
    """Yield orders until the end."""
    for body in _bodies(channel):
        # The watcher has written it.
        yield pickle.loads(body)  # noqa: S301


def pack_report(report: tuple[Any, ...]) -> bytes:
    """Return a report with its length in front."""
    return _framed(json.dumps((type(report).__name__, *report), default=_plain, separators=(",", ":")).encode())


def reports(channel: BinaryIO, kinds: tuple[type, ...]) -> Iterator[object]:
    """Yield reports, each of one of these kinds, until the end. ValueError if one is not."""
    named = {each.__name__: each for each in kinds}
    for body in _bodies(channel, LONGEST):
        found = json.loads(body)
        if not isinstance(found, list) or not found or (kind := named.get(str(found[0]))) is None:
            _refuse(found)
        yield _reader(kind)(found[1:])


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(_HEAD, "big") + body


def _bodies(channel: BinaryIO, longest: int = sys.maxsize) -> Iterator[bytes]:
    while len(head := channel.read(_HEAD)) == _HEAD:
        length = int.from_bytes(head, "big")
        if length > longest:
            raise ValueError(f"{length:,} bytes at once")
        body = channel.read(length)
        if len(body) < length:
            return
        yield body


def _unchangeable(data: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(data)


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is no part of a report")


_Read = Callable[[Any], Any]


@cache
def _reader(kind: Any) -> _Read:
    """Return what reads a value of a type from plain data: a number, a text, a tuple, or None beside one of these."""
    if get_origin(kind) is UnionType:
        (other,) = (_reader(each) for each in get_args(kind) if each is not NoneType)
        return lambda value: None if value is None else other(value)
    if get_origin(kind) is tuple:
        item, _ = get_args(kind)
        read = _reader(item)
        return lambda value: tuple(map(read, _list(value)))
    if issubclass(kind, Enum):
        member: _Read = kind
        return member
    if issubclass(kind, tuple):
        fields = [_reader(each) for each in get_type_hints(kind).values()]
        return lambda value: kind(*(read(each) for read, each in zip(fields, _list(value), strict=True)))
    if kind is float:
        return lambda value: float(value) if type(value) in {int, float} else _refuse(value)
    return lambda value: value if type(value) is kind else _refuse(value)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else _refuse(value)


def _refuse(value: object) -> NoReturn:
    raise ValueError(f"no report: {value!r:.60}")
