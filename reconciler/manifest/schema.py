"""Check a document against its schema in `schemas/`, and word what is wrong with it.

The schema file is the only contract: of a manifest, or of the operator's policy. jsonschema-rs finds in a few
milliseconds what is wrong and by which keyword of the schema; the words are ours. Only the first MAX_FINDINGS are
worded: a hostile document has a million.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any, Self

from reconciler.manifest.compose import INTEGER
from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.mistakes import SYNONYMS, misread_key, misread_text
from reconciler.manifest.standing_in import standing_in
from reconciler.wording import nearest, suggest

with standing_in("email.utils", parsedate_to_datetime=str):
    # It asks that module for the date on which it was built, which nobody needs, and which takes 8 ms.
    import jsonschema_rs

MANIFEST, POLICY = "reconciler-v1.schema.json", "reconciler-policy-v1.schema.json"
# Findings of one file that are reported; of the others there is only the number, if it is known.
MAX_FINDINGS = 100
# The most that are counted beyond those, as to count a million takes seconds.
COUNTED = 20_000
# Shorter lists are not pruned by their length alone, as some need two items.
_LONG = 8
# Longer than any text of a manifest but rules, in characters.
_LONGEST = 5000
# Unknown fields of a mapping that are compared with those that it lacks.
_COMPARED = 8


class TooManyFindingsError(Exception):
    """A file has more than MAX_FINDINGS. The rest of it is not checked."""


def schema_file(name: str = MANIFEST) -> str:
    """Return the path of a schema. In a checkout it is beside the package, in an installed package inside it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for parent in (os.path.dirname(package), package):
        file = os.path.join(parent, "schemas", name)
        if os.path.isfile(file):
            return file
    raise FileNotFoundError(f"{name} is missing from this installation")


@cache
def schema_text(name: str = MANIFEST) -> str:
    """Return a schema."""
    with open(schema_file(name), encoding="utf-8") as stream:
        return stream.read()


@cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    # Without a mask, each error contains the text of what it is about, which may be the whole document.
    return jsonschema_rs.Draft202012Validator(enforced(name), mask="")


@cache
def enforced(name: str = MANIFEST) -> dict[str, Any]:
    """Return a schema as data, without the patterns that are for editors.

    What such a pattern refuses (it has `patternErrorMessage`), the reader of its section refuses as well: by the
    kernel's own idea of an address, ten times as fast, and with the reason.
    """
    whole: dict[str, Any] = json.loads(schema_text(name))
    for definition in whole.get("$defs", {}).values():
        items = (field["items"] for field in definition.get("properties", {}).values() if "items" in field)
        for part in (definition, *items):
            if "patternErrorMessage" in part:
                del part["pattern"]
    return whole


@cache
def _validator_of(items: str, name: str) -> jsonschema_rs.Draft202012Validator:
    """Return the validator of the items of a list, which may refer to the other definitions of the schema."""
    return jsonschema_rs.Draft202012Validator(json.loads(items) | {"$defs": enforced(name).get("$defs", {})})


class Findings(list[Finding]):
    """The findings of one file, at most so many. TooManyFindingsError if there would be more.

    `more`: how many further ones are known.
    """

    def __init__(self, most: int = MAX_FINDINGS) -> None:
        super().__init__()
        self.more, self._most = 0, most

    def append(self, finding: Finding) -> None:
        """Add a finding."""
        if len(self) >= self._most:
            self.more += 1
            raise TooManyFindingsError
        super().append(finding)

    def extend(self, findings: Iterable[Finding]) -> None:
        """Add findings one by one."""
        for each in findings:
            self.append(each)

    def __iadd__(self, findings: Iterable[Finding]) -> Self:  # type: ignore[override,misc]
        self.extend(findings)
        return self


def check(document: Any, name: str = MANIFEST, most: int = MAX_FINDINGS) -> Findings:
    """Return what is wrong with a document by a schema; empty if it is valid. With `more`, that is not all of it."""
    findings = Findings(most)
    if _validator(name).is_valid(document):
        return findings
    pruned, known = Pruning(most, name), set[Finding]()
    small = pruned.prune(document, enforced(name), ())
    with suppress(TooManyFindingsError):
        for path, keyword, schema, value in _errors(document, small, pruned):
            for finding in _word(keyword, schema, value, path, name):
                # There is one error for each missing field, and each error names all of them.
                if finding not in known:
                    findings.append(finding)
                    known.add(finding)
    findings.more += pruned.more
    return findings


def _errors(document: Any, small: Any, pruned: Pruning) -> Iterator[tuple[Path, str, Mapping[str, Any], Any]]:
    """Yield the errors of a pruned document: the path in the whole one, the keyword, its schema, and what is wrong."""
    for path, keyword, schema in pruned.errors:
        yield path, keyword, schema, _value(document, path)
    for error in _validator(pruned.name).iter_errors(small):
        path = pruned.whole(tuple(error.instance_path))
        *parents, keyword = map(str, error.schema_path)
        if keyword == "minItems" and path in pruned.kept:
            continue
        at: Any = enforced(pruned.name)
        for step in parents:
            at = at[int(step) if isinstance(at, list) else step]
        value = _value(document, path)
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.PropertyNames):
            # The name of a field is wrong, and the path is that of its mapping.
            value = error.kind.error.instance
        yield path, keyword, at if isinstance(at, dict) else {}, value


def _value(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


class Pruning:
    """Makes an invalid document small: without the valid items of its lists, and with at most so many others.

    jsonschema-rs takes 60 µs and some kilobytes for each error, all at once, but a microsecond to see that an item is
    valid. `kept`: the indexes of the items that are left in each list. `errors`: what would not be found any more.
    `more`: how many invalid items were left out.
    """

    def __init__(self, most: int, name: str) -> None:
        self.name = name
        self.kept: dict[Path, list[int]] = {}
        self.errors: list[tuple[Path, str, Mapping[str, Any]]] = []
        self.more = 0
        self._left = most

    def prune(self, value: Any, schema: Mapping[str, Any], path: Path) -> Any:
        """Return a value with what its schema has words about."""
        schema = _resolved(schema, self.name)
        if isinstance(value, dict):
            return self._prune_mapping(value, schema, path)
        if isinstance(value, list):
            return self._prune_list(value, schema, path) if "items" in schema else value[:1] and [0]
        if isinstance(value, str) and schema.get("maxLength", _LONGEST) < _LONGEST:
            return value[:_LONGEST]
        return value

    def _prune_mapping(self, value: Mapping[str, Any], schema: Mapping[str, Any], path: Path) -> dict[str, Any]:
        fields, others = schema.get("properties", {}), schema.get("additionalProperties")
        small = {name: self.prune(value[name], fields[name], (*path, name)) for name in fields if name in value}
        for name in islice((name for name in value if name not in fields), MAX_FINDINGS + 1):
            small[name] = self.prune(value[name], others, (*path, name)) if isinstance(others, dict) else 0
        return small

    def _prune_list(self, value: Sequence[Any], schema: Mapping[str, Any], path: Path) -> list[Any]:
        items = _resolved(schema["items"], self.name)
        indexes: Iterable[int] = range(len(value))
        if len(value) > _LONG:
            if len(value) > schema.get("maxItems", len(value)):
                self.errors.append((path, "maxItems", schema))
            indexes = self.kept[path] = list(self._invalid(value, items))
        return [self.prune(value[index], items, (*path, index)) for index in indexes]

    def _invalid(self, value: Sequence[Any], items: Mapping[str, Any]) -> Iterator[int]:
        is_valid = _validator_of(json.dumps(items), self.name).is_valid
        for index, item in enumerate(value):
            if is_valid(item):
                continue
            if self._left:
                self._left -= 1
                yield index
            else:
                self.more += 1
                if self.more >= COUNTED:
                    return

    def whole(self, path: Path) -> Path:
        """Return the path in the whole document for a path in the pruned one."""
        found: Path = ()
        for step in path:
            found = (*found, self.kept[found][int(step)] if found in self.kept else step)
        return found


def _resolved(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a schema in place of its reference, with what stands beside that."""
    reference = schema.get("$ref")
    if not reference:
        return schema
    whole: dict[str, Any] = enforced(name)["$defs"][reference.rpartition("/")[2]] | schema
    del whole["$ref"]
    return whole


def _word(keyword: str, schema: Mapping[str, Any], value: Any, path: Path, file: str = MANIFEST) -> Iterator[Finding]:
    """Yield an error in our words: what is wrong with a value by a keyword of its schema, and what was expected.

    `file`: the schema as a whole.
    """
    # Most documents are right.
    from reconciler.manifest.values import count, example, kind_of, show

    limit: Any = schema[keyword]
    expected = schema.get("description", "something else")
    if mistake := _misread(value):
        yield Finding(path, mistake)
        return
    match keyword:
        case "required":
            unknown = islice((name for name in value if name not in schema.get("properties", ())), _COMPARED)
            meant = _written(value) | {_meant(name, schema) for name in unknown}
            for name in limit:
                if name not in meant:
                    field = schema.get("properties", {}).get(name, {})
                    yield Finding((*path, name), f"missing; expected {_describe(field, file)}")
        case "additionalProperties":
            patterns = "|".join(schema.get("patternProperties", ())) or "(?!)"
            for name in value:
                if name not in schema["properties"] and not re.search(patterns, name):
                    mistake = misread_text(name) if value[name] is None else None
                    other = _meant(name, schema)
                    hint = f'did you mean "{other}"?' if other else suggest(name, _fields(schema))
                    yield Finding((*path, name), mistake or f"unknown field; {hint}", at_key=True)
        case "maximum":
            yield Finding(path, f"{value} is above the maximum of {limit}")
        case "minimum":
            yield Finding(path, f"{value} is below the minimum of {limit}")
        case "maxItems":
            yield Finding(path, f"{count(value)}; at most {limit} are allowed")
        case "minItems":
            yield Finding(path, f"{count(value)}; at least {limit} are needed")
        case "oneOf" if _has_better_error(value, limit, schema):
            return
        case "dependentRequired":
            for name, needed in limit.items():
                for other in needed:
                    if name in value and other not in value:
                        yield Finding((*path, name), f"needs {other} beside it", at_key=True)
        case "minProperties" | "maxProperties":
            yield Finding(path, f"{show(value)}; expected {expected}")
        case "type" if isinstance(value, str) and limit != "string" and (mistake := misread_text(value)):
            yield Finding(path, mistake)
        case "type":
            quoted = f"; write {value} without quotes" if _is_quoted(value, limit) else ""
            yield Finding(path, f"{show(value)}{kind_of(value)}; expected {expected}{example(value, schema)}{quoted}")
        case "not" if limit == {}:
            yield Finding(path, f"not allowed here; expected {expected}", at_key=True)
        case _:
            yield Finding(path, f"{show(value)} is not valid; expected {expected}")


def _written(value: Mapping[str, Any]) -> set[str]:
    """Return the fields of a mapping, with those whose value follows their colon at once."""
    return {name.partition(":")[0] if value[name] is None and misread_text(name) else name for name in value}


def _fields(schema: Mapping[str, Any]) -> list[str]:
    """Return the fields of a mapping. One that the schema names only to refuse it is no hint, and has its own error."""
    return [name for name, each in schema.get("properties", {}).items() if each.get("not") != {}]


def _meant(name: str, schema: Mapping[str, Any]) -> str | None:
    """Return the field that an unknown name of a mapping stands for: one that is alike, or a word of other programs."""
    fields = _fields(schema)
    return next((field for field in SYNONYMS.get(name.lower(), ()) if field in fields), None) or nearest(name, fields)


def _is_quoted(value: Any, kind: Any) -> bool:
    """Return whether a text would be of the expected kind without the quotes around it."""
    if not isinstance(value, str):
        return False
    return value in {"true", "false"} if kind == "boolean" else kind == "integer" and bool(INTEGER.match(value))


def _misread(value: Any) -> str | None:
    """Return the mistake behind a mapping that was written as a text, if it is one."""
    if not isinstance(value, dict) or list(value.values()) != [None] or _written(value) != value.keys():
        return None
    return misread_key(next(iter(value)))


def _has_better_error(value: Any, choices: list[Any], schema: Mapping[str, Any]) -> bool:
    """Return whether another error explains it better: it is no mapping, or a field that it needs is misspelt."""
    if not isinstance(value, dict):
        return True
    written = _written(value)
    if written != value.keys():
        return True
    needed = {name for choice in choices for name in choice["required"]}
    return not needed & written and not value.keys() <= schema["properties"].keys()


def _describe(schema: Mapping[str, Any], file: str) -> str:
    return str(_resolved(schema, file).get("description", "a value"))
