"""The sections of a manifest, in the order in which they are written. A new kind of object has a line here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reconciler.manifest import interface, neighbour, route, rule
from reconciler.manifest.compose import Path
from reconciler.manifest.schema import Finding
from reconciler.manifest.section import Draft, Section
from reconciler.model.identity import RealServer, Setting, Subject, VirtualService
from reconciler.model.sandbox import Observed, Sandbox, Surroundings

if TYPE_CHECKING:
    # Most manifests say nothing of IPVS: each method imports what it needs.
    from reconciler.manifest import ipvs as notation
    from reconciler.model.ipvs import Ipvs


class _Ipvs:
    """The IPVS table. See `manifest.section.Section`."""

    name = "ipvs"

    def read(self, draft: Draft, findings: list[Finding], rules: str | None) -> notation.IpvsDraft | None:
        """Read the section."""
        if self.name not in draft.data:
            return None
        from reconciler.manifest import ipvs

        return ipvs.read(draft.data[self.name], rules, findings)

    def complete(self, drafted: notation.IpvsDraft | None) -> Ipvs | None:
        """Return the table."""
        return drafted.ipvs if drafted else None

    def write(self, value: Ipvs) -> dict[str, Any]:
        """Return the section as a manifest has it."""
        from reconciler.manifest import ipvs

        return ipvs.write(value)

    def check(self, draft: Draft) -> Iterable[Finding]:
        """Check the services against each other."""
        drafted: notation.IpvsDraft | None = draft.sections.get(self.name)
        if drafted is None:
            return ()
        from reconciler.manifest import check_ipvs

        return check_ipvs.check(drafted)

    def check_kata(self, draft: Draft) -> Iterable[Finding]:
        """Find what kata-runtime cannot do."""
        drafted: notation.IpvsDraft | None = draft.sections.get(self.name)
        if drafted is None:
            return ()
        from reconciler.manifest import check_kata_ipvs

        return check_kata_ipvs.check(drafted)

    def warn(self, sandbox: Sandbox, around: Surroundings) -> Iterable[Finding]:
        """Find services that will hardly carry a packet."""
        if sandbox.ipvs is None:
            return ()
        from reconciler.manifest import warn

        return warn.warnings(sandbox, around)

    def asks_for_all(self) -> Ipvs:
        """Return a table of which nothing is said: it is observed where its module is loaded."""
        from reconciler.model.ipvs import Ipvs

        return Ipvs()

    def none_of_ours(self, value: Ipvs) -> Ipvs:
        """Return the table without services; settings stay as they are asked for."""
        return replace(value, services=() if value.services is not None else None)

    def locate(self, value: Ipvs | None, subject: Subject) -> Path | None:
        """Find a service or a server by its key; a setting is the section's."""
        if isinstance(subject, Setting):
            return (self.name,)
        if not isinstance(subject, VirtualService | RealServer):
            return None
        server = subject.key if isinstance(subject, RealServer) else None
        service = subject.service if isinstance(subject, RealServer) else subject.key
        services = value.services or () if value else ()
        for index, found in enumerate(services):
            if found.key == service:
                keys = [each.key for each in found.servers]
                where = ("servers", keys.index(server)) if server in keys else ()
                return (self.name, "services", index, *where)
        return ()

    def list_ours(self, observed: Observed) -> Iterator[str]:
        """Yield the rules of ours."""
        from reconciler.formats.ipvsadm.write import save_rules

        ipvs = observed.sandbox.ipvs
        return save_rules(ipvs.services or ()) if ipvs else iter(())

    def list_foreign(self, around: Surroundings) -> Iterator[str]:
        """Yield the rules of others."""
        from reconciler.formats.ipvsadm.write import save_rules

        return save_rules(around.services)


SECTIONS: tuple[Section, ...] = (
    interface.SECTION,
    neighbour.SECTION,
    route.SECTION,
    rule.SECTION,
    _Ipvs(),
)


def everything(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox that lets all of ours be observed, whatever it asked for."""
    return replace(sandbox, **{section.name: section.asks_for_all() for section in SECTIONS})


def nothing(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox that asks for nothing of ours in all sections of which it said something."""
    values = {section.name: getattr(sandbox, section.name) for section in SECTIONS}
    return replace(
        sandbox,
        **{
            section.name: section.none_of_ours(values[section.name])
            for section in SECTIONS
            if values[section.name] is not None
        },
    )


def locate(sandbox: Sandbox, subject: Subject) -> Path:
    """Return where in its manifest the object of an operation is; () if the manifest does not want it."""
    found = (section.locate(getattr(sandbox, section.name), subject) for section in SECTIONS)
    return next((path for path in found if path is not None), ())
