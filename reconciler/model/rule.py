"""A rule of policy routing: which packets look up which table, as `ip rule` has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from reconciler.model.mark import PROTOCOL
from reconciler.values import dataclass, field

# include/uapi/linux/rtnetlink.h and net/fib_rules.h: tables that the kernel's own three rules look at.
KERNEL_TABLES = frozenset({253, 254, 255})
# Actions without a table (fib_rule_hdr.action, by the names of iproute2).
REJECT_ACTIONS = ("blackhole", "unreachable", "prohibit")
ALL_BITS = 0xFFFFFFFF
# FRA_SUPPRESS_PREFIXLEN of a rule that suppresses nothing.
NO_SUPPRESSION = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule. A selector that is None or 0 selects every packet.

    `family` is `ipv4` or `ipv6`; `from_` and `to` are canonical networks; `fwmark` is compared under `fwmask`; `sport`,
    `dport` and `uidrange` are (first, last). `action` is `table`, `goto` or one of REJECT_ACTIONS. `table` is 0 for
    other actions than `table`, and with `l3mdev`: then the packet's VRF names the table. `suppress_prefixlength`
    ignores routes of at most that many bits, NO_SUPPRESSION none. `protocol` is who made it, and is not compared.
    `opaque` is what no manifest can express of an observed rule, in the words of iproute2; such a rule always differs.
    """

    section: ClassVar[str] = "rules"
    family: str
    priority: int
    from_: str | None = None
    to: str | None = None
    iif: str | None = None
    oif: str | None = None
    fwmark: int = 0
    fwmask: int = 0
    ipproto: int = 0
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None
    uidrange: tuple[int, int] | None = None
    tos: int = 0
    suppress_prefixlength: int = NO_SUPPRESSION
    l3mdev: bool = False
    invert: bool = False
    action: str = "table"
    table: int = 0
    goto: int = 0
    protocol: int = field(default=PROTOCOL, compare=False)
    opaque: tuple[str, ...] = ()

    @property
    def key(self) -> Rule:
        """Return what identifies it in the kernel, which is all of it: another value of any field is another rule."""
        return self

    @property
    def nic(self) -> str | None:
        """Return None: a rule names NICs, and stays when they go."""
        return None

    @property
    def mark(self) -> str | None:
        """Return the mark as iproute2 writes it, with its mask if that is not all bits; None if any mark will do.

        The kernel takes a mark of 0 without a mask for any mark.
        """
        if not self.fwmask:
            return None
        only = self.fwmask == ALL_BITS and self.fwmark
        return f"{self.fwmark:#x}" if only else f"{self.fwmark:#x}/{self.fwmask:#x}"

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the rule once NICs have other names: it goes on naming the old ones."""
        del names
        return self


def range_text(found: tuple[int, int]) -> str:
    """Return a range as text; one of a single number is that number."""
    first, last = found
    return str(first) if first == last else f"{first}-{last}"
