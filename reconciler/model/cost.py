"""What a change costs: the connections that it cuts, as far as the kernel of the sandbox shows them."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.model.route import Route
from reconciler.values import NamedTuple


class End(NamedTuple):
    """A place that packets of a connection are sent to, and the route that they take; None: there is none."""

    address: str
    route: Route | None


class Flow(NamedTuple):
    """A connection: its address in the sandbox, and where it sends packets to.

    `ipvs`: protocol, address and port of the service and of the server of a connection of IPVS. `key`: no other
    connection has the same.
    """

    key: object
    near: str
    ends: tuple[End, ...]
    ipvs: tuple[str, str, int, str, int] | None = None


class Traffic(NamedTuple):
    """The connections of a sandbox. `unknown`: why there may be others, each a reason in words."""

    flows: tuple[Flow, ...] = ()
    unknown: tuple[str, ...] = ()


class Cut(NamedTuple):
    """How many connections a change cuts: at least and at most; `most` None: nobody knows, for the reasons `unknown`.

    `closing`: TCP connections of IPVS that have ended already, which are not counted. `persistent`: clients that lose
    the IPVS server that they were kept for.
    """

    least: int = 0
    most: int | None = 0
    closing: int = 0
    persistent: int = 0
    unknown: tuple[str, ...] = ()

    @property
    def exact(self) -> int | None:
        """Return the number if it is known."""
        return self.least if self.least == self.most else None

    def words(self) -> str:
        """Return the count and what goes with it in words; empty if it cuts nothing."""
        aside = []
        if self.closing:
            aside.append(f"{self.closing:,} more are closing")
        if self.persistent:
            aside.append(f"{self.persistent:,} persistent {'client' if self.persistent == 1 else 'clients'} forgotten")
        aside += self.unknown
        text = self.count_words()
        return f"{text} ({'; '.join(aside)})" if text and aside else text

    def count_words(self) -> str:
        """Return the count in words; empty if it cuts nothing."""
        if self.most is None:
            if self.least:
                return f"cuts {self.least:,} {_noun(self.least)}, and an unknown number of others"
            return "cuts an unknown number of connections"
        if self.least == self.most:
            return f"cuts {self.least:,} {_noun(self.least)}" if self.least else ""
        if not self.least:
            return f"may cut up to {self.most:,} {_noun(self.most)}"
        return f"cuts {self.least:,} to {self.most:,} connections"


def together(cuts: Iterable[Cut]) -> Cut:
    """Return the sum of cuts that have no connection in common."""
    found = list(cuts)
    most: int | None = 0
    for each in found:
        most = None if most is None or each.most is None else most + each.most
    return Cut(
        least=sum(each.least for each in found),
        most=most,
        closing=sum(each.closing for each in found),
        persistent=sum(each.persistent for each in found),
        unknown=tuple(dict.fromkeys(reason for each in found for reason in each.unknown)),
    )


def _noun(count: int) -> str:
    return "connection" if count == 1 else "connections"
