"""A module that stands for another one while a library is imported that needs little of it.

What a small command waits for is mostly imports. Two libraries that every command needs are compiled, but import many
modules of Python for a single name. That is used nowhere else: use it only where no other thread imports the module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType


@contextmanager
def standing_in(module: str, **content: object) -> Iterator[None]:
    """Let a module be one with this content for the time of the block, unless it has been imported already."""
    if module in sys.modules:
        yield
        return
    package, _, name = module.rpartition(".")
    above = import_module(package)
    made = sys.modules[module] = ModuleType(module)
    vars(made).update(content)
    setattr(above, name, made)
    try:
        yield
    finally:
        del sys.modules[module]
        delattr(above, name)
