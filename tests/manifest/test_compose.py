"""Text is read as what it says: no surprises, within bounds."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.manifest.compose import MAX_DEPTH, MAX_NODES, ComposeError, compose
from reconciler.manifest.dump import dump
from tests.examples import examples
from tests.manifest.plain import data

TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
TOO_MANY = f"more than {MAX_NODES:,} values, counting each use of an alias"

AS_WRITTEN = [
    *("52:54:00:12:34:56", "12:40:37:27:57:41", "02:42:20:6f:a3:69"),
    *("12:30:00", "190:20:30", "190:20:30.15"),
    *("on", "off", "yes", "no", "y", "n", "On", "NO"),
    *("True", "TRUE", "False", "FALSE", "Null", "NULL"),
    *("0777", "00", "01", "0o17", "0x1f", "0b11", "0X1F"),
    *("1e3", "12e4567", "1E+3", "1.0", ".5", "1.", "-.5", ".inf", ".nan", "-.INF"),
    *("+5", "-05", "-0", "1_000", "1,000", "٣"),
    *("2026-01-01", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43"),
    *("1000000000000000000", "-1000000000000000000", "9" * 1000),
    *("=", "10.0.0.0/16", "fd00::1/64", "::1"),
]

READ_AS: list[tuple[str, Any]] = [
    ("0", 0),
    ("1500", 1500),
    ("-7", -7),
    ("999999999999999999", 999_999_999_999_999_999),
    ("-999999999999999999", -999_999_999_999_999_999),
    ("true", True),
    ("false", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("'1500'", "1500"),
    ('"true"', "true"),
    ("''", ""),
    ("'~'", "~"),
    ("|-\n  1500", "1500"),
    (">\n  on\n  off\n", "on off\n"),
    ("1500 # bytes", 1500),
    ('"\\x41\\u00e9\\U0001F310\\n"', "Aé🌐\n"),
]

DOCUMENTS: list[tuple[str, list[Any]]] = [
    ("", []),
    ("# nothing\n", []),
    ("---\n", [None]),
    ("---\n---\n", [None, None]),
    ("a: 1\n---\nb: 2\n", [{"a": 1}, {"b": 2}]),
    ("--- a\n...\n--- b\n...\n", ["a", "b"]),
    ("%YAML 1.2\n---\na: on\n", [{"a": "on"}]),
    ("- &mac 52:54:00:12:34:56\n- [1, *mac]\n", [["52:54:00:12:34:56", [1, "52:54:00:12:34:56"]]]),
    ("- &list [on, 1]\n- {a: *list}\n", [[["on", 1], {"a": ["on", 1]}]]),
    ("- &it 1\n- &it 2\n- *it\n", [[1, 2, 2]]),
]

JSON = [
    '{"a": 1, "b": [true, false, null], "c": {"d": "on", "e": ""}}',
    '{"a":1,"b":[1,2,"x"],"c":{}}',
    '{\n\t"a":\t[\n\t\t"1e3"\n\t]\n}',
    '["\\u00e9\\/\\"\\\\\\b\\f\\n\\r\\t"]',
    '["Zürich", "東京", "🌐"]',
    "[" * MAX_DEPTH + "]" * MAX_DEPTH,
]

ENDLESS = {"lists": "[" * 100_000, "mappings": '{"a":' * 100_000, "dashes": "- " * 100_000}

PIECES = [
    *("a", "1", ": ", "- ", "? ", "\n", "\n  ", "\t", "[", "]", "{", "}", ", ", "&a ", "*a ", "!a ", "<<", "'", '"'),
    *(
        "|",
        ">",
        "# ",
        "---",
        "...",
        "%YAML 1.1\n",
        "%TAG ! a\n",
        "\\",
        "\0",
        "\ufeff",
        "\x85",
        "\u2028",
        "é",
        "🌐",
        "~",
    ),
]


def outcome(text: str) -> list[Any] | ComposeError:
    try:
        return compose(text)
    except ComposeError as error:
        return error


def refusal(text: str) -> ComposeError:
    error = outcome(text)
    assert isinstance(error, ComposeError)
    return error


@pytest.mark.parametrize("text", AS_WRITTEN)
def test_scalars_are_the_text_they_are(text: str) -> None:
    assert compose(f"a: {text}\nb:\n- {text}\n{text}: c\n") == [{"a": text, "b": [text], text: "c"}]


@pytest.mark.parametrize(("text", "value"), READ_AS)
def test_few_scalars_are_more_than_text(text: str, value: Any) -> None:
    (read,) = compose(f"a: {text}\n")
    assert (read, type(read["a"])) == ({"a": value}, type(value))


@pytest.mark.parametrize("key", ["1500", "true", "null", "~", "''", "'<<'"])
def test_keys_are_always_text(key: str) -> None:
    assert compose(f"{key}: 1\n") == [{key.strip("'"): 1}]


@pytest.mark.parametrize(("text", "documents"), DOCUMENTS)
def test_documents(text: str, documents: list[Any]) -> None:
    assert compose(text) == documents


@pytest.mark.parametrize("text", JSON)
def test_json_is_read_as_json(text: str) -> None:
    assert compose(text) == [json.loads(text)]


@pytest.mark.parametrize("bracket", ["[", "- ", "{a: "])
def test_nesting_is_bounded(bracket: str) -> None:
    error = refusal(bracket * (MAX_DEPTH + 1))
    assert (str(error), error.line, error.column) == (TOO_DEEP, 0, MAX_DEPTH * len(bracket))


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_nesting_without_end_ends_at_once(text: str) -> None:
    begin = time.perf_counter()
    assert str(refusal(text)) == TOO_DEEP
    assert time.perf_counter() - begin < 10


def test_an_alias_is_no_deeper_than_it_is_written() -> None:
    deep = "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2)
    (read,) = compose(f"- &deep {deep}\n- [[*deep]]\n")
    assert read == [json.loads(deep), [[json.loads(deep)]]]


def test_aliases_count_as_often_as_they_are_used() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    begin = time.perf_counter()
    error = refusal("\n".join(lines))
    assert (str(error), error.line, error.column) == (TOO_MANY, 6, 9)
    assert time.perf_counter() - begin < 10


def test_the_bound_of_values_holds_over_all_documents() -> None:
    # A list of 999 is 1,000 values each time it is used; with the list around them 1,999,001.
    most = f"--- [&x [{', '.join('0' * 999)}], {', '.join(['*x'] * 1998)}]\n"
    assert len(compose(most + f"--- [{', '.join('0' * 998)}]\n")) == 2
    assert str(refusal(most + f"--- [{', '.join('0' * 999)}]\n")) == TOO_MANY


@given(data())
@settings(max_examples=examples(150), deadline=None)
def test_what_dump_writes_is_read_as_it_was(value: Any) -> None:
    assert compose(dump([value, value])) == [value, value]


# JSON escapes other characters as surrogate pairs, which libyaml does not take.
@given(data(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])))
@settings(max_examples=examples(150), deadline=None)
def test_what_json_writes_is_read_as_it_was(value: Any) -> None:
    assert compose(json.dumps(value)) == [value]
    assert compose(json.dumps(value, indent=2)) == [value]


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
@example("{*a : 1}")
@example("- &a\n- *a : 1")
@settings(max_examples=examples(400), deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    read = outcome(text)
    if isinstance(read, ComposeError):
        assert (read.message != "", 0 <= read.line <= len(text), 0 <= read.column <= len(text)) == (True, True, True)
    else:
        assert compose(dump(read)) == read
