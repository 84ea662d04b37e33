"""The fields of kata-runtime's JSON, read one by one, and the error for a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.model.interface import is_manifest_name
from reconciler.wording import shown, suggest


class FieldError(ValueError):
    """A field of a document is wrong: which, and why. The field is empty if the document as a whole is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field, self.message = field, message


def check_object(data: Any) -> Mapping[str, Any]:
    """Return data that is a JSON object. FieldError if it is not."""
    if not isinstance(data, Mapping):
        raise FieldError("", "expected an object")
    return data


def check_names(data: Any, known: tuple[str, ...]) -> None:
    """Raise FieldError if data is not an object or has an unknown field."""
    for field in check_object(data):
        if field not in known:
            raise FieldError(field, f"unknown field; {suggest(field, known)}")


def text(data: Mapping[str, Any], field: str) -> str:
    """Read a text. FieldError if it is missing or not a text."""
    if field not in data:
        raise FieldError(field, "missing")
    if not isinstance(data[field], str):
        raise FieldError(field, f"{shown(data[field])} is not a text")
    return str(data[field])


def name(data: Mapping[str, Any], field: str) -> str:
    """Read the name of an interface. FieldError if it is missing or not a valid name."""
    value = text(data, field)
    if not is_manifest_name(value):
        expected = "1 to 15 letters, digits, '_', '-' and '.', the first a letter"
        raise FieldError(field, f"{shown(value)} is not the name of an interface; expected {expected}")
    return value


def number(data: Mapping[str, Any], field: str, low: int, high: int) -> int:
    """Read a number from `low` to `high`. FieldError if it is missing or not such a number."""
    if field not in data:
        raise FieldError(field, f"missing; expected a number from {low} to {high}")
    value = data[field]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FieldError(field, f"{shown(value)}: expected a number from {low} to {high}")
    return value
