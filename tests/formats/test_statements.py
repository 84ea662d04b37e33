"""A line is split into words and braces as a reader of single characters splits it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.formats.statements import CLOSE, OPEN, Position, Reader, StatementError

UNCLOSED = "a quote is not closed on its line"
Words = list[str]


def read(text: str) -> list[Words]:
    """Return the statements of a text, each as its words. A brace is one of the lists OPEN and CLOSE."""
    return [each.words for each in Reader(lambda _pattern, _by: (), lambda _place, _message: None).read("a.conf", text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b {c}", [["a", "b"], OPEN, ["c"], CLOSE]),
        ('a "b c"d"" e', [["a", "b c", "d", "", "e"]]),
        ('"{" { "}"', [["{"], OPEN, ["}"]]),
        ("a # b", [["a"]]),
        ("a!b", [["a"]]),
        ('"a # b" ! c', [["a # b"]]),
        ('"a" # "b', [["a"]]),
        (r"a\ b\{ \# c", [[r"a\ b\{", r"\#", "c"]]),
        (r'"a \" # b" c\"d', [[r"a \" # b", r"c\"d"]]),
        ("a${b c}d {", [["a${b c}d"], OPEN]),
        ("${a {b", [["$"], OPEN, ["a"], OPEN, ["b"]]),
        ("\\${a}", [["\\$"], OPEN, ["a"], CLOSE]),
        ("a\\", [["a", "\\"]]),
        ("a\\\\", [["a\\\\"]]),
    ],
)
def test_words(text: str, expected: list[Words]) -> None:
    assert read(text) == expected


@pytest.mark.parametrize("text", ['"', 'a "b', 'a "b" "c # d', r'"a\"', '"a\\', 'a"'])
def test_a_quote_that_does_not_end(text: str) -> None:
    with pytest.raises(StatementError, match=UNCLOSED) as raised:
        read(f"x\n{text}")
    assert raised.value.position == Position("a.conf", 2)


def words_of(line: str) -> list[Words]:
    """Split a line without `$` one character after the other."""
    found: list[Words] = [[]]
    word: str | None = None
    quoted = False
    rest = list(line)

    def end() -> None:
        nonlocal word
        if word is not None:
            found[-1].append(word)
        word = None

    while rest:
        each = rest.pop(0)
        if each == "\\" and rest:
            word = (word or "") + each + rest.pop(0)
        elif each == '"':
            end()
            quoted = not quoted
            word = "" if quoted else None
        elif quoted:
            word = (word or "") + each
        elif each in "#!":
            break
        elif each in "{}":
            end()
            found += [[each], []]
        elif each == " ":
            end()
        elif each == "\\":
            end()
            word = each
        else:
            word = (word or "") + each
    if quoted:
        raise ValueError(UNCLOSED)
    end()
    return [each for each in found if each]


PARTS = st.sampled_from(("a", "b", '"', "\\a", "\\{", "\\#", '\\"', "\\\\", "{", "}", "#", "!", " "))


@given(st.lists(PARTS, max_size=30).map("".join), st.sampled_from(("", "\\")))
def test_any_line(parts: str, end: str) -> None:
    line = (parts + end).strip()
    try:
        expected = words_of(line)
    except ValueError:
        with pytest.raises(StatementError, match=UNCLOSED):
            read(line)
    else:
        assert read(line) == expected
