"""The standard library's dataclasses, by another hand: a process pays for a class of values when it makes its first.

A command imports a hundred of these classes and uses ten. The standard library writes and compiles six methods for each
when it is defined, which was a third of the time of a small `diff`. Here they are written when first called:
see `reconciler.lazyclass`. For a type checker they are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
else:
    from reconciler.lazyclass import MISSING, asdict, dataclass, field, fields, is_dataclass, replace

__all__ = ["MISSING", "asdict", "dataclass", "field", "fields", "is_dataclass", "replace"]
