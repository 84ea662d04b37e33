"""Operations on routes."""

from __future__ import annotations

from typing import ClassVar

from reconciler.formats import iproute2
from reconciler.model.identity import Listed, Nic, Subject
from reconciler.model.route import Route
from reconciler.operations.base import Base, Sign
from reconciler.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnRoute(Base):
    """An operation on a route."""

    route: Route

    @property
    def subject(self) -> Subject:
        """Return the route."""
        return Listed("routes", self.route.key)

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the NICs that it goes through."""
        return frozenset(map(Nic, self.route.devices))


class AddRoute(_OnRoute):
    """Add a route. An existing one with the same key is an error."""

    __slots__ = ()

    sign: ClassVar[Sign] = "+"

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.route_command("add", self.route)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceRoute(_OnRoute):
    """Replace a route by another with the same key, without a moment in which there is none."""

    sign: ClassVar[Sign] = "~"
    before: Route

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.route_command("replace", self.route)

    @property
    def comment(self) -> str:
        """Return what is replaced."""
        if self.before != self.route:
            return f"was {iproute2.route_words(self.before)}"
        # An equal one of another owner.
        return (
            ""
            if self.before.protocol == self.route.protocol
            else f"was {iproute2.protocol_words(self.before.protocol)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRoute(_OnRoute):
    """Delete one route. It is described so that the kernel cannot delete another one.

    Several next hops are left out: the kernel would compare their order, and the other fields identify the route.
    `doubtful`: the kernel may have deleted it with an earlier operation.
    """

    sign: ClassVar[Sign] = "-"
    doubtful: bool = False

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.delete_route_command(self.route)

    @property
    def comment(self) -> str:
        """Return that it is not certain."""
        return "if it still exists" if self.doubtful else ""


RouteOperation = AddRoute | ReplaceRoute | DeleteRoute
