"""Every error type, named by whose move it is. Each knows its exit code and whether the same call may succeed later.

ReconcilerError                exit  retry   whose move
├── ManifestError               2     no     the author: everything that is wrong with the manifests, at once
├── HostError                   2     no     the operator of this host: a device, a privilege or a file is missing
├── SandboxGoneError            2     yes    whoever starts the sandbox: its namespace is not there (yet)
├── BusyError                   2     yes    another run holds the sandbox, or it changes faster than it can be read
├── ProtocolError               2     no     the peer at the other end of a channel sent what its protocol forbids
├── ChannelError                2     yes    the peer did not answer in time: what was asked of it is unknown
├── VerifyError                 2     yes    all was applied, and the sandbox still differs from its manifest
├── ApplyError                  2     no     an operation failed: which, why, and what was done about the others
└── RefusedError                3     no     the user: look at the plan again, and allow it if it is meant
"""

from __future__ import annotations

from typing import NamedTuple


class ReconcilerError(Exception):
    """Anything this program reports without a traceback."""

    exit_code = 2
    retry = False


class Problem(NamedTuple):
    """One thing that is wrong with a manifest.

    `path` is `interfaces[0].mtu`, `line` and `column` count from 1, `excerpt` is the source line and `width` the
    number of characters to underline in it from `column` on. A file that cannot be read at all has line 0.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    excerpt: str = ""
    width: int = 1

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        return place + (f"{self.path}: {self.message}" if self.path else self.message)


class ManifestError(ReconcilerError):
    """All problems of all manifests that were read together."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class HostError(ReconcilerError):
    """The host lacks something that the manifest or the command needs."""


class SandboxGoneError(ReconcilerError):
    """The sandbox does not exist (yet, or any more)."""

    retry = True


class BusyError(ReconcilerError):
    """Another run works on this sandbox, or it changes too fast to be read consistently."""

    retry = True


class ProtocolError(ReconcilerError):
    """A peer sent bytes that its protocol does not allow."""


class ChannelError(ReconcilerError):
    """A peer did not answer within its deadline."""

    retry = True


class VerifyError(ReconcilerError):
    """After an apply, the sandbox is not what its manifest says."""

    retry = True


class ApplyError(ReconcilerError):
    """An operation failed: which, why, where the manifest asks for it (`path`, empty if nowhere), and the counts."""

    def __init__(self, headline: str, reason: str, path: tuple[str | int, ...], counts: str) -> None:
        super().__init__(f"{headline}: {reason}. {counts}")
        self.headline, self.reason, self.path, self.counts = headline, reason, path, counts


class RefusedError(ReconcilerError):
    """Refused for safety, with nothing touched."""

    exit_code = 3
