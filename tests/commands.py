"""Our command line within the process of a test."""

from __future__ import annotations

import contextlib
import io

from reconciler.cli.main import main

Answer = tuple[int, str, str]


def call(words: list[str]) -> Answer:
    """Run our command line in this process, as a command of its own would run: exit code, output, messages."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            status = main(words)
        except SystemExit as leaving:
            status = int(leaving.code or 0)
    return status, stdout.getvalue(), stderr.getvalue()
