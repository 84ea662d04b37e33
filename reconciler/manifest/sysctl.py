"""Sysctls in a manifest: of the sandbox, and of an interface (checked data → model, and model → data)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.section import Draft
from reconciler.model.address import is_ipv6
from reconciler.model.identity import Subject, Sysctl
from reconciler.model.interface import IPV6_MIN_MTU, Interface
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import Route
from reconciler.model.sandbox import Observed, Surroundings
from reconciler.model.sysctl import ALL_DISABLE_IPV6, NO_NICS, OF_NIC, Sysctls

_DEFAULT_DISABLE_IPV6 = "net.ipv6.conf.default.disable_ipv6"


def read_of_nic(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> Sysctls:
    """Read the sysctls of an interface, and add to `findings` what its name and its MTU do not permit."""
    found: Mapping[str, int] = data.get("sysctls", {})
    if found and data["name"] in NO_NICS:
        message = f"the kernel has no sysctls for an interface named {data['name']}; choose another name"
        findings.append(Finding((*path, "name"), message))
    if 0 < data.get("mtu", 0) < IPV6_MIN_MTU:
        for name in found:
            if OF_NIC[name][0] == "ipv6":
                message = f"is IPv6, which needs an MTU of at least {IPV6_MIN_MTU} (RFC 8200); this interface has"
                findings.append(Finding((*path, "sysctls", name), f"{message} {data['mtu']}", at_key=True))
    return tuple(sorted(found.items()))


def _devices(item: Neighbour | Route) -> AbstractSet[str]:
    return item.devices if isinstance(item, Route) else {item.device}


class SysctlSection:
    """The sysctls of the sandbox. See `manifest.section.Section`."""

    name = "sysctls"

    def read(self, draft: Draft, findings: list[Finding], rules: str | None) -> dict[str, int] | None:
        """Read the section without what is wrong."""
        del rules
        data = draft.data.get(self.name)
        if not isinstance(data, dict):
            return None
        wrong = {finding.path[1] for finding in findings if finding.path[:1] == (self.name,) and len(finding.path) > 1}
        return {name: value for name, value in data.items() if name not in wrong}

    def complete(self, drafted: Mapping[str, int] | None) -> Sysctls | None:
        """Return the sysctls."""
        return None if drafted is None else tuple(sorted(drafted.items()))

    def write(self, value: Sysctls) -> dict[str, int]:
        """Return the data of the section."""
        return dict(value)

    def check(self, draft: Draft) -> Iterator[Finding]:
        """Find what is of IPv6 on interfaces on which the manifest turns it off."""
        everywhere: Mapping[str, int] = draft.sections.get(self.name) or {}
        off_by = next((name for name in (ALL_DISABLE_IPV6, _DEFAULT_DISABLE_IPV6) if everywhere.get(name) == 1), "")
        interfaces: list[Interface | None] = draft.sections.get("interfaces") or []
        off: dict[str, str] = {}
        for interface in interfaces:
            if interface:
                own = dict(interface.sysctls).get("disable_ipv6")
                reason = off_by if own is None else f"disable_ipv6 of {interface.name}" if own else ""
                off |= {interface.name: reason} if reason else {}
        for index, interface in enumerate(interfaces):
            if interface and interface.name in off:
                for number, address in enumerate(interface.addresses):
                    if is_ipv6(address.address):
                        message = f"{address.address} is IPv6, which {off[interface.name]} turns off"
                        yield Finding(("interfaces", index, "addresses", number), message)
        for section in ("neighbours", "routes") if off else ():
            items: list[Neighbour | Route | None] = draft.sections.get(section) or []
            for index, item in enumerate(items):
                for device in sorted(_devices(item) & off.keys()) if item and item.is_ipv6 else ():
                    yield Finding((section, index), f"it is IPv6, which {off[device]} turns off")

    def check_kata(self, draft: Draft) -> Iterator[Finding]:
        """Refuse all: kata-runtime has no command for them."""
        for name in draft.sections.get(self.name) or {}:
            yield Finding((self.name, name), "kata-runtime cannot set sysctls")

    def asks_for_all(self, value: Sysctls | None) -> Sysctls | None:
        """Return what the manifest names: nothing in the kernel says which sysctls are ours."""
        return value

    def none_of_ours(self, value: Sysctls) -> Sysctls:
        """Return nothing: sysctls stay as they are."""
        del value
        return ()

    def locate(self, value: Sysctls | None, subject: Subject) -> Path | None:
        """Return the path of a sysctl of the sandbox by its name."""
        if not isinstance(subject, Sysctl) or subject.nic is not None:
            return None
        return (self.name, subject.name) if subject.name in dict(value or ()) else ()

    def list_ours(self, observed: Observed) -> Iterator[str]:
        """Yield the sysctls that the manifest names, as sysctl(8) prints them."""
        return (f"{name} = {value}" for name, value in observed.sandbox.sysctls or ())

    def list_foreign(self, around: Surroundings) -> Iterable[str]:
        """Return nothing: all that the manifest does not name is left alone."""
        del around
        return ()
