"""Operations on routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reconciler.formats import iproute2
from reconciler.model.identity import Listed, Nic, Subject
from reconciler.model.route import Route
from reconciler.operations.base import Base, Sign


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnRoute(Base):
    route: Route

    @property
    def subject(self) -> Subject:
        """Return the route."""
        return Listed("routes", self.route.key)

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the NICs that it goes through."""
        return frozenset(map(Nic, self.route.devices))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRoute(_OnRoute):
    """Add a route. An existing one of the same destination, table and metric is an error."""

    sign: ClassVar[Sign] = "+"

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.route_command("add", self.route)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceRoute(_OnRoute):
    """Put a route in the place of another of the same key, without a moment in which there is none."""

    sign: ClassVar[Sign] = "~"
    before: Route

    @property
    def command(self) -> str:
        """Return the command."""
        return iproute2.route_command("replace", self.route)

    @property
    def comment(self) -> str:
        """Return what is replaced."""
        return f"was {iproute2.route_words(self.before)}" if self.before != self.route else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRoute(_OnRoute):
    """Delete one route, named so that no other one can go in its place.

    Several next hops are left out: the kernel would compare them in their order, and the rest names the route.
    `doubtful`: an operation before this one may have taken it along.
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
        return "if it is there still" if self.doubtful else ""


RouteOperation = AddRoute | ReplaceRoute | DeleteRoute
