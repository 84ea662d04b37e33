"""The alternative names of NICs: which go before anything is renamed, and which come after that.

No two links of a sandbox have one name, be it the one or an alternative one.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from reconciler.model.interface import Interface
from reconciler.operations.interface import AddAltnames, DeleteAltnames
from reconciler.operations.segment import Network, Segment


def coming(name: str, before: Iterable[str], after: Iterable[str] | None) -> list[Segment]:
    """Return what adds those that a NIC lacks; `after` None leaves all as they are."""
    added = tuple(sorted({*(after or ())} - {*before}))
    return [Network((AddAltnames(name=name, altnames=added),))] if added else []


def going(name: str, before: Iterable[str], after: Iterable[str] | None) -> list[Segment]:
    """Return what deletes those that a NIC has and should not have; `after` None leaves all as they are."""
    deleted = tuple(sorted({*before} - {*after})) if after is not None else ()
    return [Network((DeleteAltnames(name=name, altnames=deleted),))] if deleted else []


def wanted_names(interfaces: Iterable[Interface]) -> set[str]:
    """Return the alternative names that NICs are to have."""
    return set(chain.from_iterable(each.altnames or () for each in interfaces))
