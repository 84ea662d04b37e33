"""Runs tests in mounts of their own, where nothing waits to be confirmed but what they have changed themselves.

Commands of other tests would finish what waits here, and say so: whoever runs next on a host does that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import pending, rundir

ROOT = Path(__file__).parents[1]
# The folder has to be there before it can be covered.
_SCRIPT = 'mount -t tmpfs -o mode=0700 tmpfs "$0" && exec "$@"'
# Seconds.
_TIMEOUT = 1200.0


def run(file: str, config: pytest.Config) -> None:
    """Run the tests of a file, which pytest does not collect by itself, with the profile of this run."""
    rundir.make(pending.FOLDER)
    profile = config.getoption("--hypothesis-profile")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    words += [f"--hypothesis-profile={profile}"] if profile else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _SCRIPT, pending.FOLDER, *words],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=_TIMEOUT,
    )
    assert ran.returncode == 0, f"{ran.stdout[-20000:]}\n{ran.stderr[-2000:]}"
