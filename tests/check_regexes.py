"""Find possessive quantifiers (`a*+`) and atomic groups (`(?>a)`) in the patterns of Python files; part of `make lint`.

Debian 12 has Python 3.11.2, which matches some of them wrongly (CPython issues 100061 and 106052).

Patterns are the literals in the first argument of `re.compile` and the like. Of what is put together, parts that are
neither literals nor constants of the module are taken for the letter x.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

# Private modules, without types; but only `re` itself reads a pattern exactly as `re` does.
_parser, _constants = import_module("re._parser"), import_module("re._constants")
_FORBIDDEN = {_constants.POSSESSIVE_REPEAT: "a possessive quantifier", _constants.ATOMIC_GROUP: "an atomic group"}
_TAKE_PATTERNS = {"compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn"}


def check(source: str) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with the patterns of a Python source: (line from 1, message)."""
    module = ast.parse(source)
    constants = {
        target.id: each.value
        for each in module.body
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name) and isinstance(each.value, ast.Constant | ast.JoinedStr | ast.BinOp)
    }
    for line, pattern in _patterns(module, constants):
        for message in _problems(pattern):
            yield line, f"{message} in {pattern}"


def _patterns(module: ast.Module, constants: Mapping[str, ast.expr]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=name), args=[pattern, *_]):
                if name in _TAKE_PATTERNS:
                    yield node.lineno, _text(pattern, constants)


def _text(node: ast.expr, constants: Mapping[str, ast.expr]) -> str:
    """Return the text of an expression, with x for each part that is not known."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant(value=bytes(data)):
            return data.decode("latin-1")
        case ast.JoinedStr(values=parts):
            return "".join(_text(each, constants) for each in parts)
        case ast.FormattedValue(value=value):
            return _text(value, constants)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, constants) + _text(right, constants)
        case ast.Name(id=name) if name in constants:
            return _text(constants[name], constants)
        case _:
            return "x"


def _problems(pattern: str) -> Iterator[str]:
    try:
        found = set(_opcodes(_parser.parse(pattern)))
    except re.error as error:
        yield f"not a regular expression ({error})"
        return
    yield from (name for opcode, name in _FORBIDDEN.items() if opcode in found)


def _opcodes(tree: Any) -> Iterator[Any]:
    """Yield the opcodes of a parsed pattern at any depth."""
    if isinstance(tree, _parser.SubPattern):
        for opcode, arguments in tree:
            yield opcode
            yield from _opcodes(arguments)
    elif isinstance(tree, tuple | list):
        for each in tree:
            yield from _opcodes(each)


def main(folders: Iterable[str]) -> int:
    """Print each problem as `file:line: message`. Return the exit code: 1 if there is one."""
    problems = [
        f"{file}:{line}: {message}; Python 3.11.2 may match it wrongly"
        for folder in folders
        for file in sorted(Path(folder).rglob("*.py"))
        for line, message in check(file.read_text(encoding="utf-8"))
    ]
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
