"""What `reconciler.dataclasses` gives: classes of values that write their `__init__` when the first value is made.

The names, and what they mean, are those of PEP 557: `frozen`, `slots` and `kw_only`; a field's `default`,
`default_factory` and `compare`. Annotations are text, as `from __future__ import annotations` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final


class _Missing:
    """Stands where there is no default."""

    __slots__ = ()


MISSING: Final = _Missing()
# In a class, a mapping of its fields by name, in their order, those of its base classes first.
_FIELDS = "__lazy_fields__"


class Field:
    """A field of a class. `compare`: it takes part in `==` and `hash`."""

    __slots__ = ("compare", "default", "default_factory", "kw_only", "name")

    def __init__(self, default: Any, default_factory: Any, *, compare: bool) -> None:
        self.name, self.kw_only = "", False
        self.default, self.default_factory, self.compare = default, default_factory, compare


def field(*, default: Any = MISSING, default_factory: Any = MISSING, compare: bool = True) -> Any:
    """Return what stands in a class for a field with these."""
    return Field(default, default_factory, compare=compare)


def fields(value: Any) -> tuple[Field, ...]:
    """Return the fields of a value or class. TypeError if it is no dataclass of ours."""
    found: Mapping[str, Field] | None = getattr(value, _FIELDS, None)
    if found is None:
        raise TypeError(f"{value!r} is no dataclass of reconciler.dataclasses")
    return tuple(found.values())


def is_dataclass(value: Any) -> bool:
    """Return whether it is a dataclass of ours, or a value of one."""
    return hasattr(value, _FIELDS)


def replace(value: Any, **changes: Any) -> Any:
    """Return a value like this one with other fields. TypeError if it has no such field."""
    return type(value)(**{**{each.name: getattr(value, each.name) for each in fields(value)}, **changes})


def asdict(value: Any) -> dict[str, Any]:
    """Return a value as a mapping, and so all values below it, in tuples, lists and mappings, too."""
    return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return asdict(value)
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return {name: _plain(each) for name, each in value.items()} if isinstance(value, dict) else value


def dataclass(
    cls: type | None = None, /, *, frozen: bool = False, slots: bool = False, kw_only: bool = False
) -> Callable[[type], type] | type:
    """Return a class with the methods of PEP 557; without a class, what does so with the next one."""

    def decorate(plain: type) -> type:
        return _made(plain, frozen=frozen, slots=slots, kw_only=kw_only)

    return decorate if cls is None else decorate(cls)


def _made(cls: type, *, frozen: bool, slots: bool, kw_only: bool) -> type:
    own = _own_fields(cls, kw_only=kw_only)
    every: dict[str, Field] = {}
    for base in reversed(cls.__mro__[1:]):
        every |= base.__dict__.get(_FIELDS, {})
    every |= own
    body: dict[str, Any] = {
        _FIELDS: every,
        "__match_args__": tuple(each.name for each in every.values() if not each.kw_only),
        "__repr__": _repr,
    }
    body |= _comparing(tuple(each.name for each in every.values() if each.compare), frozen=frozen)
    if frozen:
        body |= {"__setattr__": _refuse, "__delattr__": _refuse}
    if frozen and slots:
        body |= {"__getstate__": _state, "__setstate__": _set_state}
    written = cls.__dict__
    body = {name: each for name, each in body.items() if name not in written or name in {_FIELDS, "__match_args__"}}
    if slots:
        # A class cannot get slots once it is made.
        kept = {name: each for name, each in written.items() if name not in {*own, "__dict__", "__weakref__"}}
        inherited = {name for base in cls.__mro__[1:] for name in getattr(base, _FIELDS, ())}
        body = {**kept, **body, "__slots__": tuple(name for name in own if name not in inherited)}
        body["__qualname__"] = cls.__qualname__
        made: type = type(cls)(cls.__name__, cls.__bases__, body)
    else:
        made = cls
        for name, each in own.items():
            if each.default is not MISSING:
                setattr(made, name, each.default)
            elif name in written:
                delattr(made, name)
        for name, method in body.items():
            setattr(made, name, method)

    def begin(self: Any, *words: Any, **named: Any) -> None:
        initialize = _initializer(made, every.values(), frozen=frozen)
        made.__init__ = initialize  # type: ignore[misc]
        initialize(self, *words, **named)

    made.__init__ = begin  # type: ignore[misc]
    return made


def _own_fields(cls: type, *, kw_only: bool) -> dict[str, Field]:
    found = {}
    # `inspect.get_annotations` would import `inspect`.
    for name, kind in cls.__dict__.get("__annotations__", {}).items():  # noqa: RUF063
        if kind.startswith("ClassVar"):
            continue
        default = cls.__dict__.get(name, MISSING)
        each = default if isinstance(default, Field) else Field(default, MISSING, compare=True)
        each.name, each.kw_only = name, kw_only
        found[name] = each
    return found


def _initializer(cls: type, all_fields: Any, *, frozen: bool) -> Callable[..., None]:
    """Return the `__init__` of a class, whose parameters are its fields."""
    scope: dict[str, Any] = {"_missing": MISSING, "_set": object.__setattr__}
    positional: list[str] = []
    named: list[str] = []
    lines = ["pass"]
    for each in all_fields:
        name = value = parameter = each.name
        if each.default_factory is not MISSING:
            scope[f"_make_{name}"] = each.default_factory
            parameter, value = f"{name}=_missing", f"_make_{name}() if {name} is _missing else {name}"
        elif each.default is not MISSING:
            scope[f"_default_{name}"] = each.default
            parameter = f"{name}=_default_{name}"
        (named if each.kw_only else positional).append(parameter)
        lines.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    parameters = ", ".join(["self", *positional, *(["*", *named] if named else [])])
    exec(f"def __init__({parameters}):\n" + "\n".join(f" {line}" for line in lines), scope)  # noqa: S102
    made: Callable[..., None] = scope["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _comparing(names: tuple[str, ...], *, frozen: bool) -> dict[str, Any]:
    """Return `__eq__` and `__hash__` over these fields. What can be changed has no hash."""
    content: Callable[[Any], Any] = attrgetter(*names) if names else lambda _: ()

    def equal(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self is other or content(self) == content(other)

    def hashed(self: Any) -> int:
        return hash(content(self))

    return {"__eq__": equal, "__hash__": hashed if frozen else None}


def _repr(self: Any) -> str:
    content = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self))
    return f"{type(self).__qualname__}({content})"


def _refuse(self: Any, name: str, *_value: Any) -> None:
    raise AttributeError(f"{type(self).__qualname__} cannot be changed, nor its {name}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
