"""The registry of checks. Each is a pure function over what was looked at; docs/doctor.md lists them."""

from __future__ import annotations

from reconciler.doctor.checks import between, firewall, gateways, host, inside, ipvs, opening, routing, watcher, way
from reconciler.doctor.registry import Check

# In the order of a search: what keeps one from looking, then the way of a packet from the host to the sandbox and back.
CHECKS: tuple[Check, ...] = (
    *host.CHECKS,
    *watcher.CHECKS,
    *opening.CHECKS,
    *way.CHECKS,
    *between.CHECKS,
    *inside.CHECKS,
    *gateways.CHECKS,
    *routing.CHECKS,
    *firewall.CHECKS,
    *ipvs.CHECKS,
)
