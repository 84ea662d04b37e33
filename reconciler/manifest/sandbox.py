"""A document as a whole: checked data → sandbox, and sandbox → data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.manifest.finding import Finding
from reconciler.manifest.section import Draft
from reconciler.manifest.sections import SECTIONS
from reconciler.model.sandbox import (
    KATA_RUNTIME,
    LIBVIRT_SYSTEM,
    DriverAddress,
    KataAddress,
    LibvirtAddress,
    NetnsAddress,
    Sandbox,
    VmAddress,
)
from reconciler.values import asdict

API_VERSION = "reconciler/v1"
# Fields of an address that have another name in a manifest.
_FIELDS = {"guest_agent": "guestAgent"}


def read_sections(data: Mapping[str, Any], findings: list[Finding], rules: str | None = None) -> Draft:
    """Read the sections of a document, without what `findings` of the schema are about, and add further findings.

    `rules`: the text of the file that it names as its `rulesFile`.
    """
    driver = data.get("driver")
    draft = Draft(data, driver=next(iter(driver), "") if isinstance(driver, dict) else "")
    for section in SECTIONS:
        draft.sections[section.name] = section.read(draft, findings, rules)
    if "checks" in data:
        # Most manifests have none.
        from reconciler.manifest import check_list

        draft.checks = check_list.read(data, findings)
    return draft


def complete(data: Mapping[str, Any], draft: Draft) -> Sandbox:
    """Return the sandbox of a document without findings."""
    return Sandbox(
        id=str(data["sandbox"]),
        driver=_read_driver(data["driver"]),
        paused=data.get("paused", ""),
        checks=tuple(each for each in draft.checks if each),
        **{section.name: section.complete(draft.sections[section.name]) for section in SECTIONS},
    )


def read_written(data: Mapping[str, Any]) -> Sandbox:
    """Return the sandbox of data that `write` has made. KeyError, ValueError or TypeError if they are not."""
    return complete(data, read_sections(data, []))


def _read_driver(data: Mapping[str, Any]) -> DriverAddress:
    ((driver, address),) = data.items()
    name = address.get("name")
    # A name of digits may be written without quotes.
    name = None if name is None else str(name)
    if driver == "kata":
        return KataAddress(id=str(address["id"]), runtime=address.get("runtime", KATA_RUNTIME))
    if driver == "libvirt":
        uri, guest_agent = address.get("uri", LIBVIRT_SYSTEM), address.get("guestAgent", False)
        return LibvirtAddress(domain=str(address["domain"]), uri=uri, guest_agent=guest_agent)
    if driver == "vm":
        guest_agent = address.get("guestAgent")
        return VmAddress(name=name, qmp=address.get("qmp"), agent=address.get("agent"), guest_agent=guest_agent)
    return NetnsAddress(name=name, path=address.get("path"), pid=address.get("pid"))


def _write_driver(address: DriverAddress) -> dict[str, Any]:
    if isinstance(address, KataAddress):
        runtime = {} if address.runtime == KATA_RUNTIME else {"runtime": address.runtime}
        return {"kata": {"id": address.id, **runtime}}
    if isinstance(address, LibvirtAddress):
        uri = {} if address.uri == LIBVIRT_SYSTEM else {"uri": address.uri}
        guest_agent = {"guestAgent": True} if address.guest_agent else {}
        return {"libvirt": {"domain": address.domain, **uri, **guest_agent}}
    driver = "vm" if isinstance(address, VmAddress) else "netns"
    fields = {field: value for field, value in asdict(address).items() if value is not None and field != "started"}
    return {driver: {_FIELDS.get(field, field): value for field, value in fields.items()}}


def write(sandbox: Sandbox) -> dict[str, Any]:
    """Return the data of a sandbox, without defaults."""
    data: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "sandbox": sandbox.id,
        "driver": _write_driver(sandbox.driver),
    }
    if sandbox.paused:
        data["paused"] = sandbox.paused
    for section in SECTIONS:
        value = getattr(sandbox, section.name)
        if value is not None:
            data[section.name] = section.write(value)
    if sandbox.checks:
        from reconciler.manifest import check_list

        data["checks"] = [check_list.write(each) for each in sandbox.checks]
    return data
