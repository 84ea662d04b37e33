"""Runs in User-mode Linux: commands of our command line, and programs, one after the other.

A line of JSON asks, a line answers: the exit code, what it printed, and its messages. An empty line comes first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TextIO

from tests.commands import Answer, call


def work(requests: TextIO, answers: TextIO) -> None:
    # What is asked before somebody reads is lost.
    answers.write("\n")
    answers.flush()
    for line in requests:
        match json.loads(line):
            case {"reconciler": words}:
                answer: Answer = call(words)
            case {"run": words, "stdin": path}:
                with open(path, encoding="utf-8") as stdin:
                    ran = subprocess.run(words, check=False, capture_output=True, text=True, stdin=stdin)
                answer = (ran.returncode, ran.stdout, ran.stderr)
            case _:
                raise ValueError(line)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    work(sys.stdin, sys.stdout)
