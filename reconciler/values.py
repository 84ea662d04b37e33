"""Classes of values: the standard library's dataclasses and named tuples, by another hand.

A command imports a hundred such classes and makes few values of most. The standard library writes and compiles the
methods of each when it is defined, which was more than a third of the time of a small `diff`. Here, those of a class
are written once they pay: see `reconciler.lazyclass`. For a type checker they are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
    from typing import NamedTuple
else:
    from reconciler.lazyclass import MISSING, NamedTuple, asdict, dataclass, field, fields, is_dataclass, replace

__all__ = ["MISSING", "NamedTuple", "asdict", "dataclass", "field", "fields", "is_dataclass", "replace"]
