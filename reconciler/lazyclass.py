"""What `reconciler.values` gives: classes that write what makes their values once many values are made.

The names, and what they mean, are those of PEP 557 (`frozen`, `slots` and `kw_only` of a dataclass; `default`,
`default_factory` and `compare` of a field) and of `typing.NamedTuple`. Annotations are text, as
`from __future__ import annotations` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, Final

# Values of a class until what makes them is written and compiled, which takes as long as a hundred calls save.
_MANY = 100


class _Missing:
    """Stands where there is no default."""

    __slots__ = ()


MISSING: Final = _Missing()
# In a class, a mapping of its fields by name, in their order, those of its base classes first.
_FIELDS = "__lazy_fields__"


class Field:
    """A field of a class. `compare`: it takes part in `==` and `hash`. `kw_only`: it is given by its name."""

    __slots__ = ("compare", "default", "default_factory", "kw_only", "name")

    def __init__(self, default: Any, default_factory: Any = MISSING, *, compare: bool = True) -> None:
        self.name, self.kw_only = "", False
        self.default, self.default_factory, self.compare = default, default_factory, compare


def field(*, default: Any = MISSING, default_factory: Any = MISSING, compare: bool = True) -> Any:
    """Return what stands in a class for a field with these."""
    return Field(default, default_factory, compare=compare)


def fields(value: Any) -> tuple[Field, ...]:
    """Return the fields of a value or class. TypeError if it is no dataclass of ours."""
    found: Mapping[str, Field] | None = getattr(value, _FIELDS, None)
    if found is None:
        raise TypeError(f"{value!r} is no dataclass of reconciler.values")
    return tuple(found.values())


def is_dataclass(value: Any) -> bool:
    """Return whether it is a dataclass of ours, or a value of one."""
    return hasattr(value, _FIELDS)


def replace(value: Any, /, **changes: Any) -> Any:
    """Return a value like this one with other fields. TypeError if it has no such field."""
    return type(value)(**{**{each.name: getattr(value, each.name) for each in fields(value)}, **changes})


def asdict(value: Any) -> dict[str, Any]:
    """Return a value as a mapping, and so all values below it, in tuples, lists and mappings, too."""
    return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return asdict(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_plain, value))
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


class _NamedTupleType(type):
    """The type of classes that derive from `NamedTuple`; each becomes a plain class of tuples."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, body)
        own = _own_fields(body)
        names = tuple(own)
        content = {each: value for each, value in body.items() if each not in own}
        content |= {each: property(itemgetter(number)) for number, each in enumerate(names)}
        content = {**_OF_TUPLES, **content, "__match_args__": names, "_fields": names}
        content["_field_defaults"] = {each.name: each.default for each in own.values() if each.default is not MISSING}
        made: Any = type(name, (tuple,), content)
        every = tuple(own.values())
        made.__new__ = _growing(made, "__new__", every, partial(_new_tuple, every), tuple.__new__)
        return made


class NamedTuple(metaclass=_NamedTupleType):
    """Base class of a tuple with names: `class Point(NamedTuple)`, with annotations and defaults."""


def _remade(value: Any, /, **changes: Any) -> Any:
    return type(value)(**{**value._asdict(), **changes})


# The methods of all named tuples, as `collections.namedtuple` has them.
_OF_TUPLES: Mapping[str, Any] = {
    "__slots__": (),
    "_make": classmethod(lambda cls, values: cls(*values)),
    "_asdict": lambda self: dict(zip(self._fields, self, strict=True)),
    "_replace": _remade,
    "__repr__": lambda self: _told(self, self._fields),
    "__getnewargs__": lambda self: self[:],
}


def _made(cls: type, *, frozen: bool, slots: bool, kw_only: bool) -> type:
    written = cls.__dict__
    own = _own_fields(written)
    for each in own.values():
        each.kw_only = kw_only
    inherited: dict[str, Field] = {}
    for base in reversed(cls.__mro__[1:]):
        inherited |= base.__dict__.get(_FIELDS, {})
    every = {**inherited, **own}
    methods: dict[str, Any] = {"__repr__": _repr}
    methods |= _comparing(tuple(each.name for each in every.values() if each.compare), frozen=frozen)
    if frozen:
        methods |= {"__setattr__": _refuse, "__delattr__": _refuse}
    if frozen and slots:
        methods |= {"__getstate__": _state, "__setstate__": _set_state}
    body = {name: method for name, method in methods.items() if name not in written}
    body |= {_FIELDS: every, "__match_args__": tuple(each.name for each in every.values() if not each.kw_only)}
    if slots:
        # A class cannot get slots once it is made.
        kept = {name: each for name, each in written.items() if name not in {*own, "__dict__", "__weakref__"}}
        body |= {"__slots__": tuple(name for name in own if name not in inherited), "__qualname__": cls.__qualname__}
        made: Any = type(cls)(cls.__name__, cls.__bases__, {**kept, **body})
    else:
        made = cls
        for name, each in own.items():
            if each.default is not MISSING:
                setattr(made, name, each.default)
            elif name in written:
                delattr(made, name)
        for name, method in body.items():
            setattr(made, name, method)
    parameters = tuple(every.values())
    lines = partial(_assignments, parameters, frozen=frozen)
    made.__init__ = _growing(made, "__init__", parameters, lines, _set_state)
    return made  # type: ignore[no-any-return]


def _own_fields(written: Mapping[str, Any]) -> dict[str, Field]:
    """Return the fields that the body of a class names, in their order."""
    found = {}
    # `inspect.get_annotations` would import `inspect`.
    for name, kind in written.get("__annotations__", {}).items():
        if kind.startswith("ClassVar"):
            continue
        default = written.get(name, MISSING)
        each = default if isinstance(default, Field) else Field(default)
        each.name = name
        found[name] = each
    return found


def _growing(
    cls: Any,
    name: str,
    every: tuple[Field, ...],
    lines: Callable[[], list[str]],
    place: Callable[[Any, list[Any]], Any],
) -> Callable[..., Any]:
    """Return the method of a class that makes its values; after many, it replaces itself by one that is compiled.

    `lines`: those of the compiled one, whose first parameter is `_first`. `place`: what does the same with that
    parameter and the values of the fields.
    """
    left = _MANY

    def begin(first: Any, /, *words: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        values = _bound(every, words, named) if left > 0 else None
        if values is not None:
            return place(first, values)
        setattr(cls, name, _written(cls, name, every, lines()))
        return getattr(cls, name)(first, *words, **named)

    return begin


def _assignments(every: tuple[Field, ...], *, frozen: bool) -> list[str]:
    line = "_set(_first, {name!r}, {value})" if frozen else "_first.{name} = {value}"
    return [line.format(name=each.name, value=_value(each)) for each in every]


def _new_tuple(every: tuple[Field, ...]) -> list[str]:
    return [f"return _new(_first, ({''.join(f'{each.name}, ' for each in every)}))"]


def _bound(every: tuple[Field, ...], words: Sequence[Any], named: Mapping[str, Any]) -> list[Any] | None:
    """Return the value of each field if a call gives them so; None if the call has a fault."""
    values = []
    rest = iter(words)
    left, unused = len(words), len(named)
    for each in every:
        if left and not each.kw_only:
            left -= 1
            values.append(next(rest))
            if each.name in named:
                return None
        elif each.name in named:
            unused -= 1
            values.append(named[each.name])
        elif each.default_factory is not MISSING:
            values.append(each.default_factory())
        elif each.default is not MISSING:
            values.append(each.default)
        else:
            return None
    return None if left or unused else values


def _value(each: Field) -> str:
    """Return the expression for the value of a field, in what `_written` compiles."""
    return (
        each.name
        if each.default_factory is MISSING
        else f"_make_{each.name}() if {each.name} is _missing else {each.name}"
    )


def _written(cls: Any, name: str, every: Iterable[Field], lines: Iterable[str]) -> Callable[..., Any]:
    """Return a compiled method whose parameters are the fields of a class."""
    scope: dict[str, Any] = {"_missing": MISSING, "_set": object.__setattr__, "_new": tuple.__new__}
    positional, named = ["_first"], ["*"]
    for each in every:
        parameter = each.name
        if each.default_factory is not MISSING:
            scope[f"_make_{each.name}"] = each.default_factory
            parameter += "=_missing"
        elif each.default is not MISSING:
            scope[f"_default_{each.name}"] = each.default
            parameter += f"=_default_{each.name}"
        (named if each.kw_only else positional).append(parameter)
    parameters = ", ".join([*positional, *(named if len(named) > 1 else [])])
    exec("\n ".join([f"def {name}({parameters}):", "pass", *lines]), scope)  # noqa: S102
    made: Callable[..., Any] = scope[name]
    made.__qualname__ = f"{cls.__qualname__}.{name}"
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
    return _told(self, [each.name for each in fields(self)])


def _told(value: Any, names: Iterable[str]) -> str:
    return f"{type(value).__qualname__}({', '.join(f'{name}={getattr(value, name)!r}' for name in names)})"


def _refuse(self: Any, name: str, *_value: Any) -> None:
    raise AttributeError(f"{type(self).__qualname__} cannot be changed, nor its {name}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
