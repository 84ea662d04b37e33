"""What the watcher measures while it works. Here nothing is kept: `watch.exposition` keeps it, with `--metrics`."""

from __future__ import annotations

from typing import ClassVar

from reconciler import errors
from reconciler.converge import Result
from reconciler.history.scribe import DRIFT
from reconciler.operations.ipvs import DrainServer
from reconciler.values import NamedTuple
from reconciler.watch.look import Look

# The kinds of errors that have no class of ours: of the operating system, and in reconciler itself.
SYSTEM, DEFECT = "system", "defect"


class Looked(NamedTuple):
    """A look at a sandbox of a driver, from connecting to it until the end of its repair: in so many seconds."""

    driver: str
    full: bool
    succeeded: bool
    seconds: float


class Repaired(NamedTuple):
    """Operations that a look executed, because of a `cause`, in so many seconds. `drains`: servers that began to."""

    driver: str
    cause: str
    seconds: float
    drains: int


class Failed(NamedTuple):
    """An error of a kind: one of KINDS."""

    kind: str


Measurement = Looked | Repaired | Failed


class Meter:
    """Takes measurements, and keeps none. Any thread may call all methods."""

    keeps: ClassVar[bool] = False

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement."""

    def record_look(self, look: Look, seconds: float, *, succeeded: bool) -> None:
        """Record how long a look took."""
        self.add(Looked(look.driver, look.full, succeeded, seconds))

    def record_repair(self, look: Look, result: Result) -> None:
        """Record what a look did to its sandbox, and what it could not change."""
        if result.operations:
            drains = sum(isinstance(each, DrainServer) for each in result.operations) if result.draining else 0
            self.add(Repaired(look.driver, look.cause or DRIFT, result.seconds, drains))
        if result.failure:
            self.record_error(result.failure.error)

    def record_error(self, error: Exception) -> None:
        """Record an error that ended a look, or that is about a manifest."""
        self.add(Failed(kind_of(error)))


def _kinds() -> dict[type[Exception], str]:
    """Return the name of each class of the tree of errors: `sandbox_gone` for SandboxGoneError."""
    found: dict[type[Exception], str] = {}
    for name, each in vars(errors).items():
        if isinstance(each, type) and issubclass(each, errors.ReconcilerError) and each is not errors.ReconcilerError:
            words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
            found[each] = words.strip("_").removesuffix("_error")
    return found


_NAMES = _kinds()
KINDS = (*_NAMES.values(), SYSTEM, DEFECT)


def kind_of(error: Exception) -> str:
    """Return the kind of an error: a class of the tree of errors, SYSTEM or DEFECT."""
    known = next((_NAMES[each] for each in type(error).__mro__ if each in _NAMES), DEFECT)
    return SYSTEM if known == DEFECT and isinstance(error, OSError) else known
