"""The process that reads manifests for the watcher, one file after the other, within limits. See `watch.parser`.

It reads requests from standard input, one a line, and writes an answer for each to standard output: its length in 8
bytes, and the contents of the file as `pickle` writes them. It ends with its input.
"""

from __future__ import annotations

import json
import pickle
import resource
import sys
import time

from reconciler.manifest.beneath import Source
from reconciler.manifest.load import read_file
from reconciler.model.policy import Policy


def main(memory: int, seconds: int) -> None:
    """Answer requests. A file that takes more memory or time than this ends the process."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    for line in sys.stdin.buffer:
        # The limit is on all that the process has used: an allowance for one file begins from there.
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + seconds, resource.RLIM_INFINITY))
        path, roots, policy, places, folders = json.loads(line)
        lines = {field: (first, last) for field, (first, last) in places.items()}
        allowed = Policy(file=policy, lines=lines, rules_files=tuple(folders))
        answer = pickle.dumps(read_file(Source(path, tuple(roots)), allowed), pickle.HIGHEST_PROTOCOL)
        sys.stdout.buffer.write(len(answer).to_bytes(8, "big") + answer)
        sys.stdout.buffer.flush()
