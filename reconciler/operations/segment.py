"""Runs of operations that are executed in the same way: a plan is a sequence of them.

A driver matches on the class of a segment and knows the type of each operation in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from reconciler.values import dataclass, replace

if TYPE_CHECKING:
    # Named as text in the bases below: an apply loads only the operations that it has.
    from reconciler.operations import Operation
    from reconciler.operations.interface import MoveOperation  # noqa: F401
    from reconciler.operations.ipvs import IpvsOperation  # noqa: F401
    from reconciler.operations.machine import MachineOperation  # noqa: F401
    from reconciler.operations.network import NetworkOperation  # noqa: F401
    from reconciler.operations.runtime import ImportedRule, ObjectCommand, RuleCommand  # noqa: F401
    from reconciler.operations.sysctl import SetNetworkSysctl  # noqa: F401

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Run(Generic[T_co]):
    """Operations that are executed alike, in order."""

    operations: tuple[T_co, ...]

    def without(self, dropped: Collection[Operation]) -> Self:
        """Return the run without some of its operations."""
        return self.with_operations(each for each in self.operations if each not in dropped)

    def with_operations(self, operations: Iterable[Any]) -> Self:
        """Return a run of the same sort with other operations of that sort."""
        return replace(self, operations=tuple(operations))


class Moves(Run["MoveOperation"]):
    """Devices move between the host and a network namespace."""

    __slots__ = ()


class Network(Run["NetworkOperation"]):
    """Links, addresses, neighbours, routes and rules of the sandbox's kernel change."""

    __slots__ = ()


class Settings(Run["SetNetworkSysctl"]):
    """Sysctls of the sandbox's kernel change."""

    __slots__ = ()


class Table(Run["IpvsOperation"]):
    """The IPVS table of the sandbox's kernel changes. Its operations do not depend on each other."""

    __slots__ = ()


class Plugs(Run["MachineOperation"]):
    """NICs are plugged into a virtual machine and unplugged."""

    __slots__ = ()


class Commands(Run["ObjectCommand"]):
    """A runtime's command line changes interfaces and routes."""

    __slots__ = ()


class Imports(Run["ImportedRule"]):
    """A runtime's command line imports new IPVS services with their servers, all at once."""

    __slots__ = ()


class RuleCommands(Run["RuleCommand"]):
    """A runtime's command line changes IPVS rules, which do not depend on each other."""

    __slots__ = ()


Segment: TypeAlias = Moves | Network | Settings | Table | Plugs | Commands | Imports | RuleCommands


def joined(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Return segments without empty ones, and with adjacent ones of the same sort joined."""
    runs = [list(run) for _, run in groupby(filter(_is_not_empty, segments), type)]
    return tuple(run[0].with_operations(flat(run)) if len(run) > 1 else run[0] for run in runs)


def _is_not_empty(segment: Segment) -> bool:
    return bool(segment.operations)


def without(segments: Sequence[Segment], dropped: Collection[Operation]) -> tuple[Segment, ...]:
    """Return segments without some of their operations."""
    return joined(segment.without(dropped) for segment in segments) if dropped else tuple(segments)


def flat(segments: Iterable[Segment]) -> tuple[Operation, ...]:
    """Return the operations of segments in order."""
    return tuple(chain.from_iterable(segment.operations for segment in segments))
