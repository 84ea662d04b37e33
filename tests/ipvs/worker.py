"""Runs in the guest, below our own Python: commands of our command line, and shell scripts, one after the other.

A start of Python takes the guest seconds, so one process does them all. A line of JSON asks, a line answers.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from typing import TextIO

from reconciler.cli.main import main

Answer = tuple[int, str, str]


def call(words: list[str]) -> Answer:
    """Run our command line in this process, as a command of its own would run."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            status = main(words)
        except SystemExit as leaving:
            status = int(leaving.code or 0)
    return status, stdout.getvalue(), stderr.getvalue()


def work(requests: TextIO, answers: TextIO) -> None:
    for line in requests:
        request = json.loads(line)
        match request:
            case {"file": path, "text": text}:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                answer: Answer = (0, "", "")
            case {"reconciler": words}:
                answer = call(words)
            case {"run": words, "stdin": stdin}:
                ran = subprocess.run(words, check=False, capture_output=True, input=stdin.encode())
                answer = (ran.returncode, ran.stdout.decode(), ran.stderr.decode())
            case _:
                raise ValueError(line)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    work(sys.stdin, sys.stdout)
