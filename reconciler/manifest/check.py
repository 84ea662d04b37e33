"""Checks of several objects: within a manifest, section by section, and across all manifests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.manifest.compose import Path
from reconciler.manifest.schema import Finding
from reconciler.manifest.section import Draft
from reconciler.manifest.sections import SECTIONS
from reconciler.model.sandbox import KataAddress, Sandbox, VmAddress


def check_sections(draft: Draft) -> list[Finding]:
    """Check a manifest by itself, as far as it could be read."""
    findings: list[Finding] = []
    for section in SECTIONS:
        findings += section.check(draft)
    if draft.driver == "kata":
        for section in SECTIONS:
            findings += section.check_kata(draft)
    return findings


def check_together(sandboxes: Sequence[tuple[str, Sandbox]]) -> Iterator[tuple[int, Finding]]:
    """Check manifests, each with the name of its file, against each other. Yield the index of a wrong one, and why.

    A sandbox, its namespace or agent, and each device and MAC address are in one manifest only.
    """
    first: dict[tuple[str, str], int] = {}
    for index, (_, sandbox) in enumerate(sandboxes):
        for what, value, path in _claims(sandbox):
            owner = first.setdefault((what, value), index)
            if owner != index:
                file, other = sandboxes[owner]
                yield index, Finding(path, f"{value} is the {what} of sandbox {other.id} already, in {file}")


def _claims(sandbox: Sandbox) -> Iterator[tuple[str, str, Path]]:
    yield "ID", sandbox.id, ("sandbox",)
    # The file identifies a namespace or a machine, however a manifest names it.
    if isinstance(sandbox.driver, KataAddress):
        yield "container", sandbox.driver.id, ("driver", "kata", "id")
    elif isinstance(sandbox.driver, VmAddress):
        yield "agent socket", sandbox.driver.file, ("driver",)
        if sandbox.driver.qmp:
            yield "QMP socket", sandbox.driver.qmp, ("driver", "vm", "qmp")
    else:
        yield "namespace", sandbox.driver.file, ("driver",)
    for index, interface in enumerate(sandbox.interfaces or ()):
        yield "device", interface.device, ("interfaces", index, "device")
        yield "hwAddr", interface.hw_addr, ("interfaces", index, "hwAddr")
