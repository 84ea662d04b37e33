"""Warnings about manifests that are valid and can be applied, but will hardly carry a packet.

What was observed where a manifest is to be applied counts as well: a warning may need it, and must not contradict it.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.manifest.finding import Finding
from reconciler.manifest.warn import network
from reconciler.model.sandbox import Sandbox, Surroundings


def warnings(sandbox: Sandbox, around: Surroundings) -> Iterator[Finding]:
    """Yield the warnings about a manifest. `around` is what was observed; its defaults if nothing was."""
    yield from network.warnings(sandbox, around)
    if around.states or around.in_front or around.local_table:
        # Only what was observed can have been changed.
        from reconciler.manifest.warn import others

        yield from others.warnings(sandbox, around)
    if sandbox.ipvs is not None:
        # Most manifests have no IPVS section.
        from reconciler.manifest.warn import ipvs

        yield from ipvs.warnings(sandbox, around)
