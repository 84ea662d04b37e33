"""libyaml's parser alone. Importing this first makes `yaml` a package that is loaded when something else of it is used.

PyYAML's C module imports all of PyYAML, only to raise the errors of its Python modules. That takes four times as long
as the C module itself, and longer than reading most manifests. So for the time of that import, other classes stand for
these errors; `yaml` itself is what it always is as soon as anything of it but the parser's own modules is asked for.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reconciler.manifest.standing_in import standing_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.abc import Loader

    from yaml import CSafeLoader

# The modules with what the C module makes.
_USED = ("error", "tokens", "events", "nodes")
# The modules with the errors that the C module raises. Most errors have marks, which show where in the text they are.
_ERRORS = {
    "reader": "ReaderError",
    "scanner": "ScannerError",
    "parser": "ParserError",
    "composer": "ComposerError",
    "constructor": "ConstructorError",
    "emitter": "EmitterError",
    "serializer": "SerializerError",
    "representer": "RepresenterError",
}
_WITHOUT_MARKS = {"reader", "emitter", "serializer", "representer"}


class _Reason:
    """What a ReaderError tells."""

    def __init__(self, name: str, position: int, character: int, encoding: str, reason: str) -> None:
        self.name, self.position, self.character = name, position, character
        self.encoding, self.reason = encoding, reason


def _load() -> ModuleType:
    """Return PyYAML's C module, and see to it that the rest is loaded once it is used."""
    if "yaml" in sys.modules:
        return import_module("yaml._yaml")
    spec = find_spec("yaml")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("PyYAML is missing", name="yaml")
    package = sys.modules["yaml"] = module_from_spec(spec)
    for place in _USED:
        import_module(f"yaml.{place}")
    errors = import_module("yaml.error")
    with ExitStack() as stack:
        for place, error in _ERRORS.items():
            kind = errors.YAMLError if place in _WITHOUT_MARKS else errors.MarkedYAMLError
            stand_in = type(error, (_Reason, kind) if place == "reader" else (kind,), {})
            stack.enter_context(standing_in(f"yaml.{place}", **{error: stand_in}))
        module = import_module("yaml._yaml")
    setattr(package, "__getattr__", _Rest(package, spec.loader, module))  # noqa: B010 PEP 562, which mypy refuses
    return module


class _Rest:
    """Loads the rest of the package when something asks for a name that it has not yet.

    We ask for one only while `manifest.dump` is imported, which two threads do one after the other.
    """

    def __init__(self, package: ModuleType, loader: Loader, module: ModuleType) -> None:
        self._package, self._loader, self._module = package, loader, module
        self._is_loaded = False

    def __call__(self, name: str) -> Any:
        """Return what has this name. AttributeError if there is nothing of that name."""
        if not self._is_loaded:
            self._is_loaded = True
            self._loader.exec_module(self._package)
            for place, error in _ERRORS.items():
                setattr(self._module, error, getattr(import_module(f"yaml.{place}"), error))
        try:
            return vars(self._package)[name]
        except KeyError:
            raise AttributeError(f"module 'yaml' has no attribute {name!r}") from None


_yaml = _load()
# It has what PyYAML's loaders have of it: an event at a time.
Parser: type[CSafeLoader] = _yaml.CParser


def parse(text: str) -> Iterator[Any]:
    """Yield the events of a text, of `yaml.events`. `yaml.error.MarkedYAMLError` or a ReaderError if it is wrong."""
    parser = Parser(text)
    while parser.check_event():
        yield parser.get_event()


def unreadable(error: Exception) -> tuple[int, int]:
    """Return the character that YAML must not have, and its position in bytes, of an error of the parser without marks.

    Any other error is raised.
    """
    if not isinstance(error, _yaml.ReaderError):
        raise error
    return error.character, error.position
