"""Operations on sysctls of the network. Those of IPVS belong to its table: see `operations.ipvs`."""

from __future__ import annotations

from typing import ClassVar

from reconciler.model.identity import NOTHING, Nic, Subject, Sysctl
from reconciler.model.sysctl import ALL_DISABLE_IPV6, full_name
from reconciler.operations.base import Base, Sign
from reconciler.values import dataclass
from reconciler.wording import quote


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNetworkSysctl(Base):
    """Change a sysctl, by its name for sysctl(8). `before` is None if it is not known.

    `nic`: the NIC that it belongs to; None: it belongs to the sandbox.
    """

    sign: ClassVar[Sign] = "~"
    name: str
    value: int
    before: int | None = None
    nic: str | None = None

    @property
    def command(self) -> str:
        """Return the command."""
        return f"sysctl -w {quote(f'{self.name}={self.value}')}"

    @property
    def comment(self) -> str:
        """Return what it was, or why it is set again, and what goes with it."""
        if self.before == self.value:
            return "another one changes it"
        was = [] if self.before is None else [f"was {self.before}"]
        off = self.value == 1 and self.name in {ALL_DISABLE_IPV6, self.nic and full_name(self.nic, "disable_ipv6")}
        return "; ".join([*was, *(["deletes IPv6 addresses and routes"] if off else [])])

    @property
    def subject(self) -> Subject:
        """Return the sysctl."""
        return Sysctl(self.name, self.nic)

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the NIC without which it does not exist."""
        return NOTHING if self.nic is None else frozenset((Nic(self.nic),))
