"""The sections of a manifest, in the order in which they are written. A new kind of object has a line here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from reconciler.manifest import interface, neighbour, route, rule
from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.section import Draft, Section
from reconciler.manifest.sysctl import SysctlSection
from reconciler.model.identity import RealServer, Setting, Subject, VirtualService
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.values import replace

if TYPE_CHECKING:
    # Most manifests have no IPVS section: each method imports what it needs.
    from reconciler.manifest import ipvs as notation
    from reconciler.model.ipvs import Ipvs


class _IpvsSection:
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
        """Return the data of the section, without defaults."""
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
        """Return findings about what kata-runtime cannot do."""
        drafted: notation.IpvsDraft | None = draft.sections.get(self.name)
        if drafted is None:
            return ()
        from reconciler.manifest import check_kata_ipvs

        return check_kata_ipvs.check(drafted)

    def asks_for_all(self, value: Ipvs | None) -> Ipvs:
        """Return an empty table: it is observed if the kernel has loaded its module."""
        del value
        from reconciler.model.ipvs import Ipvs

        return Ipvs()

    def none_of_ours(self, value: Ipvs) -> Ipvs:
        """Return the table without services, with its settings unchanged."""
        return replace(value, services=() if value.services is not None else None)

    def locate(self, value: Ipvs | None, subject: Subject) -> Path | None:
        """Return the path of a service or a server by its key; for a setting, the path of the section."""
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
        """Yield our rules."""
        from reconciler.formats.ipvsadm.write import save_rules

        ipvs = observed.sandbox.ipvs
        return save_rules(ipvs.services or ()) if ipvs else iter(())

    def list_foreign(self, around: Surroundings) -> Iterator[str]:
        """Yield the foreign rules."""
        from reconciler.formats.ipvsadm.write import save_rules

        return save_rules(around.services)


SECTIONS: tuple[Section, ...] = (
    SysctlSection(),
    interface.SECTION,
    neighbour.SECTION,
    route.SECTION,
    rule.SECTION,
    _IpvsSection(),
)


def everything(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox with all sections, so that all our objects are observed."""
    values = {section.name: section.asks_for_all(getattr(sandbox, section.name)) for section in SECTIONS}
    return replace(sandbox, **values)


def nothing(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox in which every section that it has is empty: all our objects there are deleted."""
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
    """Return the path in the manifest of the object of an operation; () if the manifest does not contain it."""
    found = (section.locate(getattr(sandbox, section.name), subject) for section in SECTIONS)
    return next((path for path in found if path is not None), ())
