"""A document as a whole: checked data → sandbox, and sandbox → data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.manifest import interface, route
from reconciler.manifest.schema import Finding
from reconciler.model.interface import Interface
from reconciler.model.route import Route
from reconciler.model.sandbox import DriverAddress, NetnsAddress, Sandbox

API_VERSION = "reconciler/v1"


@dataclass(slots=True)
class Draft:
    """A document as far as it could be read: None in place of what could not, so that the others keep their indexes.

    `unsure` names the interfaces that are there but could not be read, and those that a route which could not be read may
    reach something through.
    """

    interfaces: list[Interface | None] | None = None
    routes: list[Route | None] | None = None
    unsure: set[str] = field(default_factory=set)


def read_sections(data: Mapping[str, Any], findings: list[Finding]) -> Draft:
    """Read the sections of a document, leaving out what `findings` of the schema are about; add what else is wrong."""
    draft = Draft()
    flagged = {finding.path[:2] for finding in findings}
    interfaces, routes = data.get("interfaces"), data.get("routes")
    names = set()
    if isinstance(interfaces, list):
        draft.interfaces = []
        for index, item in enumerate(interfaces):
            where = ("interfaces", index)
            read = None if where in flagged else interface.read(item, where, findings)
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                names.add(item["name"])
                draft.unsure |= set() if read else {item["name"]}
            draft.interfaces.append(read)
    if isinstance(routes, list):
        draft.routes = [
            None if flagged and ("routes", index) in flagged else route.read(item, ("routes", index), findings)
            for index, item in enumerate(routes)
        ]
        if findings:
            unread = (item for item, read in zip(routes, draft.routes, strict=True) if read is None)
            draft.unsure |= {item["device"] for item in unread if _is_direct(item) and item["device"] in names}
    return draft


def _is_direct(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("device"), str) and not item.get("gateway")


def complete(data: Mapping[str, Any], draft: Draft) -> Sandbox:
    """Make the sandbox of a document in which nothing is wrong."""
    return Sandbox(
        id=str(data["sandbox"]),
        driver=_read_driver(data["driver"]),
        interfaces=None if draft.interfaces is None else tuple([item for item in draft.interfaces if item]),
        routes=None if draft.routes is None else tuple([item for item in draft.routes if item]),
    )


def _read_driver(data: Mapping[str, Any]) -> DriverAddress:
    netns = data["netns"]
    name = netns.get("name")
    return NetnsAddress(name=None if name is None else str(name), path=netns.get("path"), pid=netns.get("pid"))


def write(sandbox: Sandbox) -> dict[str, Any]:
    """Write a sandbox as a manifest says it."""
    address = sandbox.driver
    netns = {"name": address.name, "path": address.path, "pid": address.pid}
    data: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "sandbox": sandbox.id,
        "driver": {"netns": {field: value for field, value in netns.items() if value is not None}},
    }
    if sandbox.interfaces is not None:
        data["interfaces"] = [interface.write(item) for item in sandbox.interfaces]
    if sandbox.routes is not None:
        data["routes"] = [route.write(item) for item in sandbox.routes]
    return data
