"""Text that a terminal would obey, or that hides what it is, and the check that none of it leaves a command."""

from __future__ import annotations

import json
import os
import sys
from io import BytesIO, TextIOWrapper
from typing import Any

import yaml

from reconciler.cli.main import main

# Escape sequences in C0 and C1, a window title, a line that looks like ours, NEL, line and paragraph separators, marks
# that reverse the direction of writing, invisible characters, a tag outside of the first plane, DEL, and NUL excepted.
WORDS = (
    "\x1b[31mred\x1b]0;t\x07\x9b2J\r\nweb-1: in sync\x85\u2028\u2029\u202e\u2066\u200b\ufeff\xad\U000e0041\x7f\x08end"
)
# The same for a name of a file, with bytes that are no UTF-8.
NAME = os.fsdecode(b"\xff\xc3" + WORDS.replace("/", "").encode())


def check(data: bytes) -> str:
    """Return what a command printed. Fail if a terminal would do more than show it, line by line."""
    text = data.decode()
    wrong = {hex(ord(each)) for each in text if not each.isprintable() and each != "\n"}
    assert not wrong, f"{sorted(wrong)} in {text!r}"
    forged = [line for line in text.splitlines() if line.startswith("web-1: in sync")]
    assert not forged, text
    return text


def run(*words: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a command. Return its exit code, and its output, which must be harmless."""
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = (TextIOWrapper(BytesIO(each), encoding="utf-8") for each in (stdin, b"", b""))
    streams = sys.stdout, sys.stderr
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
    out, err = map(_written, streams)
    return code, out, err


def _written(stream: TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, BytesIO)
    return check(stream.buffer.getvalue())


def read(form: str, text: str) -> Any:
    """Return the data of an output for programs. Fail if it is not what it has to be."""
    return json.loads(text) if form == "json" else list(yaml.safe_load_all(text))
