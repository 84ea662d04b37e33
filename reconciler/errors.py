"""The tree of errors, by who has to act. Each has an exit code, and says whether the same call may succeed later.

ReconcilerError                exit  retry   who has to act, or what happened
├── ManifestError               2     no     the author: the manifests have these problems (all are listed at once)
├── HostError                   2     no     the operator of this host: a device, a privilege or a file is missing
├── SandboxGoneError            2     yes    the operator of the sandbox: it does not exist (yet)
├── BusyError                   2     yes    another run uses the sandbox, or it changes faster than it can be read
├── ProtocolError               2     no     the peer at the other end of a channel sent what its protocol forbids
├── ChannelError                2     yes    the peer did not answer in time; whether it did its part is unknown
├── VerifyError                 2     yes    all was applied, and the sandbox still differs from its manifest
├── ApplyError                  2     no     an operation failed: which, why, and what became of the others
└── RefusedError                3     no     the user: check the plan, and allow it if it is intended
    └── NotAllowedError         3     no     the operator of this host: the policy does not allow what a manifest names
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from reconciler.values import NamedTuple


class ReconcilerError(Exception):
    """An error that is reported without a traceback.

    `about`: the identity (`model.identity.Subject`) of the only object that is concerned; None if there is no such one.
    `path` is the field of the manifest that the error is about; empty if there is none. `lines` is the message, line by
    line: a line break within one came from outside.
    """

    exit_code = 2
    retry = False

    def __init__(
        self, words: str = "", *, about: Hashable = None, path: tuple[str | int, ...] = (), more: Sequence[str] = ()
    ) -> None:
        super().__init__("\n".join((words, *more)))
        self.lines = (words, *more)
        self.about = about
        self.path = path


# Problems of a report, and its characters with the excerpts.
MAX_PROBLEMS = 200
MAX_LENGTH = 60_000


class Problem(NamedTuple):
    """One problem of a manifest.

    `path` is such as `interfaces[0].mtu`. `line` and `column` count from 1; line 0 means that the file could not be
    read. `excerpt` is the source line, or the part of a long one that begins after `start` characters; `width` is the
    number of characters to underline from `column` on. `times`: how many problems it stands for, at least.
    `refused`: the operator's policy does not allow what is otherwise right.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    excerpt: str = ""
    width: int = 1
    start: int = 0
    times: int = 1
    refused: bool = False

    def to_data(self) -> dict[str, Any]:
        """Return it as data for programs: without what says nothing about most problems."""
        usual = self._field_defaults
        return {name: value for name, value in self._asdict().items() if name in _ALWAYS or value != usual[name]}

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: " * bool(self.file)
        return place + (f"{self.path}: {self.message}" if self.path else self.message)


_ALWAYS = set(Problem._fields) - {"start", "times", "refused"}


class ManifestError(ReconcilerError):
    """All problems of all manifests that were loaded together, as far as they fit into a report; see `bounded`.

    If the policy refuses them, and nothing else is wrong, the exit code is that of RefusedError.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = bounded(problems)
        if problems and all(problem.refused for problem in problems):
            self.exit_code = RefusedError.exit_code
        first, *more = map(str, self.problems)
        super().__init__(first, more=more)


def bounded(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems that fit into a report, which is bounded in number and length, and the number of the others.

    At least one of each file is listed as long as there is room.
    """
    first = {problem.file: index for index, problem in reversed(list(enumerate(problems)))}
    order = sorted(range(len(problems)), key=lambda index: first[problems[index].file] != index)
    listed, length = set[int](), 0
    for index in order:
        length += len(str(problems[index])) + 3 * len(problems[index].excerpt)
        if len(listed) == MAX_PROBLEMS or length > MAX_LENGTH:
            break
        listed.add(index)
    kept = [problem for index, problem in enumerate(problems) if index in listed]
    others = [problem for index, problem in enumerate(problems) if index not in listed]
    if others:
        count = sum(problem.times for problem in others)
        kept.append(Problem("", 0, 0, "", f"and at least {count:,} more problems, which are not listed", times=count))
    return kept


class HostError(ReconcilerError):
    """The host lacks something that the manifest or the command needs."""


class SandboxGoneError(ReconcilerError):
    """The sandbox does not exist (yet, or any more)."""

    retry = True


class BusyError(ReconcilerError):
    """Another run uses this sandbox, or the sandbox changes too fast to be read consistently."""

    retry = True


class ProtocolError(ReconcilerError):
    """A peer sent bytes that its protocol does not allow."""


class ChannelError(ReconcilerError):
    """A peer did not answer within its deadline."""

    retry = True


class VerifyError(ReconcilerError):
    """After an apply, the sandbox still differs from its manifest."""

    retry = True


class ApplyError(ReconcilerError):
    """An operation failed.

    `headline` says which one, `reason` why, and `counts` what became of the others. `others`: which others failed, and
    why; `fates`: which were kept, undone and not tried; both as lines. `is_kept`: not everything was undone.
    """

    def __init__(
        self,
        headline: str,
        reason: str,
        path: tuple[str | int, ...],
        counts: str,
        fates: tuple[str, ...] = (),
        others: tuple[str, ...] = (),
        *,
        is_kept: bool = False,
    ) -> None:
        super().__init__(f"{headline}: {reason}. {counts}", path=path, more=[f"  {each}" for each in others])
        self.headline, self.reason, self.counts = headline, reason, counts
        self.fates, self.others, self.is_kept = fates, others, is_kept


class RefusedError(ReconcilerError):
    """Refused for safety. Nothing was changed."""

    exit_code = 3


class NotAllowedError(RefusedError):
    """The operator's policy does not allow what a manifest names. Nothing was changed.

    `refusals`: each field of the manifest, and what would have to be allowed.
    """

    def __init__(self, refusals: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(message for _, message in refusals), path=refusals[0][0])
        self.refusals = refusals
