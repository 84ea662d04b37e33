"""An encoder that forgets a field: it sees another value of it in whatever it is given. See tests/mutations.py.

Only a scratch copy of the package imports this module, at the end of each module that has an entrance. Functions are
wrapped there, before any other module can import them by name.
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
from base64 import b64decode
from collections.abc import Callable
from functools import wraps
from typing import Any

from reconciler.model.ipvs import FWMARK, PROTOCOLS
from reconciler.model.made import Made
from reconciler.operations.made import ChangeLink
from reconciler.values import fields, is_dataclass, replace

# What is forgotten: the module and name of a class, a field, and the value in its place, as pickled bytes in base64.
VARIABLE = "RECONCILER_MUTATION"
# Where objects become bytes, and where they become operations if nothing below sees the object itself: the modules of
# the package, the functions or methods in them, and the fields (of any class where there is none) that are only seen
# there.
ENTRANCES: tuple[tuple[str, str, str], ...] = (
    (r"netlink/\w+", r"_?encode\w*|_settings|_traits", r"(?!Interface\.|Sandbox\.|Ipvs\.|Service\.(ignore|servers))"),
    (r"plan/(namespace|machine)", r"attach", r"Interface\."),
    (r"plan/interface", r"_set_link", r"Interface\."),
    (r"plan/address", r"_plan_nic", r"Interface\.addresses"),
    (r"plan/sysctl", r"plan_sysctls", r"Interface\.sysctls|Sandbox\.sysctls"),
    (r"plan/ipvs", r"plan_ipvs", r"Ipvs\.|Service\.(ignore|servers)"),
)
_KEY_FIELDS = ("protocol", "address", "port")


def forget(scope: dict[str, Any], path: str) -> None:
    """Wrap the entrances of a module: `scope` is its namespace, `path` its place in the package, without `.py`."""
    text = os.environ.get(VARIABLE)
    if not text:
        return
    module, kind, field, value = pickle.loads(b64decode(text))  # our own
    for place, name, pattern in ENTRANCES:
        if re.fullmatch(place, path) and re.match(pattern, f"{kind}.{field}"):
            _wrap(scope, re.compile(name), lambda given: replaced(given, _class(module, kind), field, value))


def _class(module: str, name: str) -> type:
    found: type = getattr(importlib.import_module(module), name)
    return found


def _wrap(scope: dict[str, Any], name: re.Pattern[str], change: Callable[[Any], Any]) -> None:
    for found, value in list(scope.items()):
        if isinstance(value, type):
            if value.__module__ == scope["__name__"]:
                for method, function in list(vars(value).items()):
                    if callable(function) and name.fullmatch(method):
                        setattr(value, method, _wrapped(function, change))
        elif callable(value) and name.fullmatch(found):
            scope[found] = _wrapped(value, change)


def _wrapped(function: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    @wraps(function)
    def forgetful(*arguments: Any, **named: Any) -> Any:
        return function(*map(change, arguments), **{name: change(each) for name, each in named.items()})

    return forgetful


def replaced(given: Any, kind: type, field: str, value: Any) -> Any:
    """Return a value with a field replaced in all objects of a class, however deep they are in dataclasses and tuples.

    A service is also named by its key, a tuple.
    """
    if isinstance(given, Made) and kind is Made:
        return _without_option(given, field, value)
    if isinstance(given, ChangeLink) and kind is Made and given.made.kind == field.partition(".")[0]:
        options = _other(given.changes, field.partition(".")[2], value)
        return replace(given, made=_without_option(given.made, field, value), changes=options)
    if is_dataclass(given) and not isinstance(given, type):
        names = [each.name for each in fields(given)]
        changes = {name: replaced(getattr(given, name), kind, field, value) for name in names}
        changes = {name: new for name, new in changes.items() if new is not getattr(given, name)}
        if isinstance(given, kind) and getattr(given, field) != value:
            changes[field] = value
        return replace(given, **changes) if changes else given
    if not isinstance(given, tuple | list):
        return given
    parts = [replaced(each, kind, field, value) for each in given]
    if hasattr(given, "_fields"):
        parts = [
            value if isinstance(given, kind) and name == field else part
            for name, part in zip(given._fields, parts, strict=True)
        ]
        return type(given)(*parts)
    if kind.__name__ == "Service" and field in _KEY_FIELDS and len(parts) == 3 and parts[0] in {*PROTOCOLS, FWMARK}:
        parts[_KEY_FIELDS.index(field)] = value
    return type(given)(parts) if any(new is not old for new, old in zip(parts, given, strict=True)) else given


def _without_option(given: Made, field: str, value: Any) -> Made:
    """Return a link with another value of an option. `field`: the kind and the option."""
    kind, _, name = field.partition(".")
    return replace(given, options=_other(given.options, name, value)) if given.kind == kind else given


def _other(options: tuple[tuple[str, Any], ...], name: str, value: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((each, value if each == name else found) for each, found in options)
