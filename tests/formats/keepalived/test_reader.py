"""Lines become statements as keepalived makes them; a line as a reader of single characters splits it."""

from __future__ import annotations

import re
from fnmatch import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.formats.keepalived import reader
from reconciler.formats.keepalived.reader import Reader
from reconciler.formats.keepalived.statements import CLOSE, OPEN, Position, StatementError

UNCLOSED = "a quote is not closed on its line"
DIFFER = "keepalived 2.3 and 2.4 differ over a \\ that ends a comment; remove one of both"
Words = list[str]


def read(text: str) -> list[Words]:
    """Return the statements of a text, each as its words. A brace is one of the lists OPEN and CLOSE."""
    return [each.words for each in Reader(lambda _pattern, _by: (), None).read("a.conf", text)]


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
        (r"a\ b\{ \# c", [["a\\", "b\\"], OPEN]),
        (r'"a \" # b" c\"d', [["a \\", "#", "b", " c\\", "d"]]),
        ('"\\#" \\! # c', [["\\#"]]),
        ("a\xa0b\tc", [["a\xa0b", "c"]]),
        ("${a {b", [["$"], OPEN, ["a"], OPEN, ["b"]]),
        ("a\\", [["a\\"]]),
        ("a\\\\", [["a\\\\"]]),
        ("a \\", [["a\\"]]),
        ("# \\", []),
    ],
)
def test_words(text: str, expected: list[Words]) -> None:
    assert read(text) == expected


@pytest.mark.parametrize("text", ['"', 'a "b', 'a "b" "c # d', r'"a\"', '"a\\', 'a"'])
def test_a_quote_that_does_not_end(text: str) -> None:
    with pytest.raises(StatementError, match=UNCLOSED) as raised:
        read(f"x\n{text}")
    assert raised.value.position == Position("a.conf", 2)


def without_comment(line: str) -> str:
    """Remove a comment one character after the other."""
    kept, quoted, at = "", False, 0
    while at < len(line):
        each, following = line[at], line[at + 1 : at + 2]
        if each == "\\" and not quoted and following and following in "#!":
            kept, at = kept + following, at + 2
        elif each == "\\" and following:
            kept, at = kept + each + following, at + 2
        elif each == "\\":
            kept, at = kept.rstrip() + each, at + 1
        elif each in "#!" and not quoted:
            backslashes = len(line) - len(line.rstrip("\\"))
            if backslashes % 2 and kept.strip():
                raise ValueError(DIFFER)
            return kept.strip()
        else:
            quoted ^= each == '"'
            kept, at = kept + each, at + 1
    if quoted:
        raise ValueError(UNCLOSED)
    return kept.strip()


def words_of(line: str) -> list[Words]:
    """Split a line without `$` one character after the other."""
    found: list[Words] = [[]]
    word: str | None = None
    quoted = False
    for each in without_comment(without_comment(line)) + " ":
        if each == '"':
            if word is not None:
                found[-1].append(word)
            quoted = not quoted
            word = "" if quoted else None
        elif quoted:
            word = (word or "") + each
        elif each in "{} ":
            if word is not None:
                found[-1].append(word)
            word = None
            found += [[each], []] if each != " " else []
        else:
            word = (word or "") + each
    return [each for each in found if each]


PARTS = st.sampled_from(("a", "b", '"', "\\a", "\\{", "\\#", '\\"', "\\\\", "{", "}", "#", "!", " "))


@given(st.lists(PARTS, max_size=30).map("".join), st.sampled_from(("", "\\")))
def test_any_line(parts: str, end: str) -> None:
    line = (parts + end).strip()
    try:
        expected = words_of(line)
    except ValueError as error:
        with pytest.raises(StatementError, match=re.escape(str(error))):
            read(line)
    else:
        assert read(line) == expected


def texts(text: str, config_id: str | None = None, files: dict[str, str] | None = None) -> list[str]:
    """Return the statements of a text, each as one string."""

    def find(pattern: str, _by: str) -> list[tuple[str, str]]:
        return [(name, content) for name, content in (files or {}).items() if fnmatch(name, pattern)]

    return [" ".join(each.words) for each in Reader(find, config_id).read("a.conf", text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # keepalived.conf(5), in its order.
        ("$BASE=10.2.${SUB}\n$SUB=0\n${BASE}.100/32\n$SUB=10\n${BASE}.100/32", ["10.2.0.100/32", "10.2.10.100/32"]),
        ("@main $P=240\n@backup $P=200\npriority $P", ["priority 240"]),
        # Where a definition brings a condition or a repetition, the first is the line that versions read differently.
        ("$IF_MAIN=@main\n$IF_MAIN priority 240", ["@main priority 240", "priority 240"]),
        ("$IF_MAIN=@backup\n$IF_MAIN priority 240", ["@backup priority 240"]),
        (
            "$I= \\\n  v ${N} { \\\n  @main p 1 \\\n  @low p 2 \\\n  }\n$N=0\n$I\n$N=1\n$I",
            ["v 0", "{", "p 1", "}", "v 1", "{", "p 1", "}"],
        ),
        (
            (
                "$RS= \\\n  r ${V}.${R} { \\\n  } \\\n\n"
                "$VS= \\\n  v ${V} { \\\n $R=1 \\\n $RS \\\n $R=2 \\\n $RS \\\n }\n$V=7\n$VS"
            ),
            ["v 7", "{", "r 7.1", "{", "}", "r 7.2", "{", "}", "}"],
        ),
        ("~SEQ(S, 0, 3) a ${S}", ["a 0", "a 1", "a 2", "a 3"]),
        ("~SEQx(S, 144, 16, 192) a ${S}", ["a 90", "a a0", "a b0", "a c0"]),
        ("~SEQx(S, 0x90, 0x10, 0xc0) a ${S}", ["a 90", "a a0", "a b0", "a c0"]),
        ("~SEQx(A, 0x90, 0x10, 0xa0) ~SEQx(B, 0x12, -1, 0x11) ${A}:${B}", ["90:12", "90:11", "a0:12", "a0:11"]),
        ("~LST({A, B}, {10,1},{20,4}) ${A}.${B}", ["10.1", "20.4"]),
        ("~LST(A, 1, 2) ~LST(B, 5,6) ${A}.${B}", ["1.5", "1.6", "2.5", "2.6"]),
        (
            "~LST({A, B}, {10,1},{20,4}) ~SEQ(C,168,2,170) ${C}.${A}.${B}",
            ["168.10.1", "170.10.1", "168.20.4", "170.20.4"],
        ),
        # What its sources add.
        ("~SEQ(N, 3) ${N}", ["1", "2", "3"]),
        ("~SEQ(N, 0) ${N}", ["1", "0"]),
        ("~SEQ(N, -2) ${N}", ["-1", "-2"]),
        ("~SEQ(N, 3, 1) ${N}", ["3", "2", "1"]),
        ("~SEQ(N, 1, 5, 3) ${N}", ["1"]),
        ("~SEQ (N,010,011)a$N", ["a8", "a9"]),
        ("$LAST=2\n~SEQ(N, 1, $LAST) ${N}", ["1", "2"]),
        ("~LST({A,B}, {1}, 2) ${A}-${B}", ["1-", "2-"]),
        ("$L=~SEQ(N,1,2) x ${N}\n$L", ["~SEQ(N,1,2) x ${N}", "x 1", "x 2"]),
        ("$M= \\\n  a ${N} \\\n  b \\\n\n~SEQ(N,1,2) $M\nc", ["a 1", "b", "a 2", "b", "c"]),
        ("$M= \\\n  z \\\n  ~SEQ(N,1,2) a ${N} \\\n  b \\\n\n$M\nc", ["z", "a 1", "a 2", "b", "c"]),
        # A name for several lines counts only at the end of a line.
        ("$M= \\\n  a \\\n  b\nx $M\n$M y", ["x a", "b", "$M y"]),
        # An empty line ends a definition; one with a comment as well, and one of blanks.
        ("$M= \\\n  a \\\n# c\n  b \\\n\nc\n$M", ["b\\", "c", "a"]),
        ("$M= \\\n  a \\\n  \n  b \\\n\nc\n$M", ["b\\", "c", "a"]),
        ("$M= \\\n  a \\\n  \\\n  b \\\n\nc\n$M", ["c", "a", "b"]),
        ("$M=\\\n\nc\n$M", ["c"]),
        # What follows a brace is a line of its own.
        ("a { @main b }\n@low c { d }", ["a", "{", "b", "}"]),
        ("a { $B=1\n x$B ${B} }", ["a", "{", "x1 1", "}"]),
        ("@^main a\n@^low b\n@main\n@low", ["b"]),
        # A value is read for comments where it is used.
        ('$A="a # b"\n$B=x\nc $A $B', ["c a # b x"]),
        ("a \\# $B", ["a"]),
        ('a ${_HASH} b\nc "${_BANG}"', ["a", "c !"]),
        ("include a.inc\nz", ["in a", "z"]),
        ("a { include a.inc\n}", ["a", "{", "in a", "}"]),
        ("include {a,b}.inc", ["in a", "in b"]),
        ("$X=b\ninclude ${X}.inc", ["in b"]),
        ("@main include a.inc\n@low include b.inc", ["in a"]),
        ("~LST(F, a, b) include ${F}.inc", ["in b", "in a"]),
        ("include none*.inc", []),
        ("include none.inc", ["include none.inc"]),
        ("x ${_INSTANCE}", ["x main"]),
    ],
)  # fmt: skip
def test_evaluation(text: str, expected: list[str]) -> None:
    assert texts(text, "main", {"a.inc": "in a", "b.inc": "in b\n"}) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("~SEQ(N)", "not a ~SEQ; expected one such as ~SEQ(NAME, 1, 9)"),
        ("~SEQ(N, 1", "not a ~SEQ; expected one such as ~SEQ(NAME, 1, 9)"),
        ("~SEQ({N}, 1) x", "not a ~SEQ; expected one such as ~SEQ(NAME, 1, 9)"),
        ("~SEQ(N, $LAST) x", '~SEQ: "$LAST" is not a number'),
        ("~SEQ(N, 08) x", '~SEQ: "08" is not a number'),
        ("~SEQ(N, 99999999999) x", "~SEQ: 99999999999 is too large"),
        ("~SEQ(N, 1, -1, 3) x", "~SEQ: steps of -1 do not lead from 1 to 3"),
        ("~SEQ(N, 1, 0, 3) x", "~SEQ: steps of 0 do not lead from 1 to 3"),
        ("~SEQ(N, 1, 1, 3, 4) x", "~SEQ: expected at most three numbers: the first, the step, and the last"),
        ("~SEQx(N, -1) x", "~SEQx: expected no negative number"),
        ("~LST(A) x", '~LST: expected "," before "x"'),
        ("~LST A", "not a ~LST; expected one such as ~LST(NAME, a, b)"),
        ("~LST({A,B}, {1,2,3}) x", "~LST: 3 values for 2 names"),
        ("~LST({A,B}, {1,2) x", '~LST: expected "," before ") x"'),
        ("$A= \\\n x # c \\\n", DIFFER),
        ("$A= \\\n # c \\\n", DIFFER),
        ("$A= \\\n include b \\\n", "keepalived cannot include a file within a definition"),
        ("x" * 1023, "longer than 1,022 bytes, which keepalived cannot read"),
        ("# " + "ä" * 511, "longer than 1,022 bytes, which keepalived cannot read"),
        ("include " + "{a,b}" * 50, f"include {'{a,b}' * 16}…: more than 1,000 patterns"),
    ],
)
def test_what_cannot_be_evaluated(text: str, message: str) -> None:
    with pytest.raises(StatementError) as raised:
        texts(text)
    assert str(raised.value) == message


def test_repetitions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "REPEATED_MAX", 100)
    assert len(texts("~SEQ(N, 1, 100) x")) == 100
    with pytest.raises(StatementError, match="more than 100 lines by definitions and repetitions"):
        texts("$A= \\\n ~SEQ(N, 1, 10) $B \n$B= \\\n x \\\n $A \\\n\n$A")
