"""Our command line, which is killed (SIGKILL) at a step of one of its processes: at the Nth call of a function of ours.

    ROLE=… STEP=N python -m tests.system.stepped WORD…

ROLE: `command`, or `helper` or `twin`, the processes that `apply --confirm` leaves. With STEP=0 nothing is killed, and
the file STEPS gets the number of steps.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from reconciler.confirm import helper, trial

_PACKAGE = str(Path(trial.__file__).parents[1])
_steps = 0


def _count(frame: FrameType, event: str, _: object) -> None:
    global _steps  # noqa: PLW0603 the profiler of a process has one number
    if event == "call" and frame.f_code.co_filename.startswith(_PACKAGE):
        _steps += 1
        if _steps == int(os.environ["STEP"]):
            os.kill(os.getpid(), signal.SIGKILL)


def _arm() -> None:
    def write() -> None:
        Path(os.environ["STEPS"]).write_text(str(_steps))

    atexit.register(write)
    sys.setprofile(_count)


def main(sandbox: str) -> None:
    """Be the helper."""
    names = ["twin", "helper"]
    os.register_at_fork(
        after_in_parent=names.pop, after_in_child=lambda: _arm() if os.environ["ROLE"] == names[-1] else None
    )
    helper.main(sandbox)


if __name__ == "__main__":
    from reconciler.cli.main import main as command

    trial._HELPER = "tests.system.stepped"
    if os.environ["ROLE"] == "command":
        _arm()
    sys.exit(command(sys.argv[1:]))
