"""Works on several sandboxes beside each other, so that a slow one delays no other; output is in their order.

One sandbox is worked on in the calling thread, and pays nothing for that. Whatever one fails of, the others go on.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Generic, TypeVar

from reconciler.cli.output import Line, say, warn
from reconciler.errors import ReconcilerError
from reconciler.manifest.load import Manifest, explain
from reconciler.wording import failure

# Sandboxes at the same time. Most of them wait: for a kernel, for duplicate address detection, for servers that drain.
MOST = 32

_T = TypeVar("_T")


class Output:
    """What one sandbox has to say. It is printed at once, or when it is its turn."""

    def __init__(self, *, is_direct: bool) -> None:
        self.is_direct = is_direct
        self._said: list[Callable[[], None]] = []

    def say(self, *lines: Line, color: bool = False) -> None:
        """Print lines on standard output, as `output.say` does."""
        self._print(partial(say, *lines, color=color))

    def warn(self, *lines: Line) -> None:
        """Print lines on standard error, as `output.warn` does."""
        self._print(partial(warn, *lines))

    def _print(self, printing: Callable[[], None]) -> None:
        if self.is_direct:
            printing()
        else:
            self._said.append(printing)

    def forget(self) -> None:
        """Forget what was said."""
        self._said = []

    def flush(self) -> None:
        """Print what was said."""
        said, self._said = self._said, []
        for printing in said:
            printing()
            # Both streams may be one terminal.
            sys.stdout.flush()


class Ended(Generic[_T]):
    """What became of one sandbox: its result, or why it failed."""

    def __init__(self, manifest: Manifest, output: Output) -> None:
        self.manifest = manifest
        self.output = output
        self.result: _T | None = None
        self.error: Exception | None = None
        self.is_over = threading.Event()

    def run(self, work: Callable[[Manifest, Output], _T]) -> None:
        """Do the work. No error leaves this."""
        try:
            self.result = work(self.manifest, self.output)
        except Exception as error:  # noqa: BLE001 a defect that shows in one sandbox must not stop the others
            self.error = error
        finally:
            self.is_over.set()

    def retry(self, work: Callable[[Manifest, Output], _T]) -> None:
        """Do the work once more, after an error."""
        self.error = None
        self.output.forget()
        self.run(work)

    @property
    def exit_code(self) -> int:
        """Return 0, or the exit code of the error."""
        if self.error is None:
            return 0
        return self.error.exit_code if isinstance(self.error, ReconcilerError) else 2

    def lines(self) -> Sequence[str]:
        """Return the error in words, with the place in the manifest, line by line."""
        name = self.manifest.sandbox.id
        match self.error:
            case ReconcilerError() as error:
                return explain(self.manifest, error)
            case OSError() as error:
                return [f"{name}: {failure(error)}"]
            case error:
                # Only a defect pays for the import.
                import traceback

                at = traceback.extract_tb(error.__traceback__ if error else None)[-1:]
                place = "".join(f" ({os.path.basename(each.filename)}:{each.lineno})" for each in at)
                return [f"{name}: a defect of reconciler: {type(error).__name__}: {error}{place}; please report it"]


def beside(
    manifests: Sequence[Manifest],
    work: Callable[[Manifest, Output], _T],
    *,
    again: Callable[[Exception], bool] = lambda _: False,
) -> Iterator[Ended[_T]]:
    """Work on all sandboxes; yield what became of each, in order, and print what it said before.

    `again` returns whether an error may be over once all others have ended: then a sandbox is tried once more.
    """
    ended: list[Ended[_T]] = [Ended(manifest, Output(is_direct=len(manifests) == 1)) for manifest in manifests]
    if len(ended) == 1:
        ended[0].run(work)
    else:
        _begin(ended, work)
    try:
        for each in ended:
            each.is_over.wait()
            if each.error and len(ended) > 1 and again(each.error):
                for other in ended:
                    other.is_over.wait()
                each.retry(work)
            each.output.flush()
            yield each
    except KeyboardInterrupt:
        for each in ended:
            if each.is_over.is_set():
                each.output.flush()
        raise


def _begin(ended: Sequence[Ended[_T]], work: Callable[[Manifest, Output], _T]) -> None:
    waiting = deque(ended)

    def run() -> None:
        while True:
            try:
                next_ = waiting.popleft()
            except IndexError:
                return
            next_.run(work)

    for _ in range(min(MOST, len(ended))):
        # An interrupted command ends without waiting for them, as it ends without waiting for itself.
        threading.Thread(target=run, daemon=True).start()
