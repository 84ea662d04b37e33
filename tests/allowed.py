"""The policy of the tests: what they name outside of the defaults. It is written to a file as an operator's is."""

from __future__ import annotations

import atexit
import shlex
import shutil
import tempfile
from functools import cache
from pathlib import Path

from reconciler.manifest import policy
from reconciler.manifest.dump import dump
from reconciler.model.policy import Policy
from reconciler.values import replace
from tests import forked

_FOLDER = Path(tempfile.mkdtemp(prefix="reconciler-tests-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_RUNTIME = str(_FOLDER / "kata-runtime")
FILE = str(_FOLDER / "policy.yaml")
_TEMPORARY = tempfile.gettempdir()


def write_policy(file: str | Path, **fields: object) -> str:
    """Write a policy file; give its path."""
    path = Path(file)
    path.write_text(dump([fields]))
    path.chmod(0o644)
    return str(path)


def script(file: str | Path, *words: str) -> str:
    """Write a program that runs another one; give its path."""
    path = Path(file)
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)
    return str(path)


@cache
def command() -> list[str]:
    """Return the words that run our program in a fork of a process that has imported it."""
    return forked.start(_FOLDER / "commands")


@cache
def runtime() -> str:
    """Write our own program as a `kata-runtime`. Return its path, which is no other user's, as the checkout may be."""
    return script(_RUNTIME, *command())


write_policy(
    FILE,
    namespaces={"folders": ["/run/netns", _TEMPORARY]},
    sockets=["/run", _TEMPORARY],
    # The TUNs that Kernel.tap makes.
    physicalDevices={"*": ["r[0-9]*x*t*"]},
    runtimes=["/usr/bin/kata-runtime", _RUNTIME, "/bin/false", "/nowhere/kata-runtime"],
)
# As of a command that may plug in what it needs to reach a machine.
POLICY: Policy = replace(policy.read(FILE, []), may_push=True)
