"""A document as a whole: checked data → sandbox, and sandbox → data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.manifest import interface, route
from reconciler.manifest.schema import Finding
from reconciler.model.interface import Interface
from reconciler.model.route import Route
from reconciler.model.sandbox import KATA_RUNTIME, DriverAddress, KataAddress, NetnsAddress, Sandbox, VmAddress

if TYPE_CHECKING:
    # Most manifests say nothing of IPVS.
    from reconciler.manifest.ipvs import Section

API_VERSION = "reconciler/v1"


@dataclass(slots=True)
class Draft:
    """A document as far as it could be read: None in place of what could not, so that the others keep their indexes.

    `unsure` names the interfaces that are there but could not be read, and those that a route which could not be read may
    reach something through. `vm`: the sandbox is a virtual machine; `kata`: it is reached by the commands of kata-runtime.
    """

    vm: bool = False
    kata: bool = False
    interfaces: list[Interface | None] | None = None
    routes: list[Route | None] | None = None
    unsure: set[str] = field(default_factory=set)
    ipvs: Section | None = None


def read_sections(data: Mapping[str, Any], findings: list[Finding], rules: str | None = None) -> Draft:
    """Read the sections of a document, leaving out what `findings` of the schema are about; add what else is wrong.

    `rules`: the text of the file that it names as its `rulesFile`.
    """
    driver = data.get("driver")
    named = driver if isinstance(driver, dict) else {}
    draft = Draft(vm="vm" in named, kata="kata" in named)
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
    if "ipvs" in data:
        from reconciler.manifest import ipvs

        draft.ipvs = ipvs.read(data["ipvs"], rules, findings)
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
        ipvs=draft.ipvs.ipvs if draft.ipvs else None,
        paused=data.get("paused", ""),
    )


def _read_driver(data: Mapping[str, Any]) -> DriverAddress:
    ((driver, address),) = data.items()
    name = address.get("name")
    # A name of digits may be written without quotes.
    name = None if name is None else str(name)
    if driver == "kata":
        return KataAddress(id=str(address["id"]), runtime=address.get("runtime", KATA_RUNTIME))
    if driver == "vm":
        return VmAddress(name=name, qmp=address.get("qmp"), agent=address.get("agent"))
    return NetnsAddress(name=name, path=address.get("path"), pid=address.get("pid"))


def _write_driver(address: DriverAddress) -> dict[str, Any]:
    if isinstance(address, KataAddress):
        runtime = {} if address.runtime == KATA_RUNTIME else {"runtime": address.runtime}
        return {"kata": {"id": address.id, **runtime}}
    driver = "vm" if isinstance(address, VmAddress) else "netns"
    return {driver: {field: value for field, value in asdict(address).items() if value is not None}}


def write(sandbox: Sandbox) -> dict[str, Any]:
    """Write a sandbox as a manifest says it."""
    data: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "sandbox": sandbox.id,
        "driver": _write_driver(sandbox.driver),
    }
    if sandbox.paused:
        data["paused"] = sandbox.paused
    if sandbox.interfaces is not None:
        data["interfaces"] = [interface.write(item) for item in sandbox.interfaces]
    if sandbox.routes is not None:
        data["routes"] = [route.write(item) for item in sandbox.routes]
    if sandbox.ipvs is not None:
        from reconciler.manifest import ipvs

        data["ipvs"] = ipvs.write(sandbox.ipvs)
    return data
