"""The text of the operator's policy → a policy. It is read like a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from reconciler.errors import ManifestError
from reconciler.manifest.allow import canonical
from reconciler.manifest.compose import ComposeError, compose, locate
from reconciler.manifest.files import file_problem
from reconciler.manifest.load import syntax_problem
from reconciler.manifest.place import DocumentFindings, problems
from reconciler.manifest.schema import POLICY, check
from reconciler.model.policy import Devices, Policy

_EMPTY = "is empty; write what differs from the defaults, or delete the file to have the defaults"


def parse(name: str, text: str) -> Policy:
    """Return the policy of a text. `name`: what messages call its file. ManifestError with everything wrong with it."""
    try:
        documents = compose(text)
    except ComposeError as error:
        raise ManifestError([syntax_problem(name, text, error)]) from None
    if not any(each is not None for each in documents):
        raise ManifestError([file_problem(name, _EMPTY)])
    if len(documents) > 1:
        raise ManifestError([file_problem(name, "contains several documents; a policy is one")])
    if isinstance(documents[0], dict) and "apiVersion" in documents[0]:
        raise ManifestError([file_problem(name, "is a manifest; expected a policy, as docs/security.md describes it")])
    if findings := check(documents[0], POLICY):
        raise ManifestError(problems(name, text, [DocumentFindings(0, findings)]))
    data: Mapping[str, Any] = documents[0]
    return _complete(data, Policy(file=name, lines=MappingProxyType(_lines(text, data))))


def _lines(text: str, fields: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return the first and the last line of each field, from 1, in the order of the text."""
    found = locate(text, {0: [(field,) for field in fields]})[0]
    first = {field: (found[field,].key or found[field,].value)[0] for field in fields}
    lines = text.splitlines()
    found_lines: dict[str, tuple[int, int]] = {}
    for (field, at), following in zip(first.items(), [*first.values(), len(lines)][1:], strict=True):
        last = max(at, following - 1)
        # Empty lines and comments belong to what follows.
        while last > at and lines[last].lstrip()[:1] in {"", "#"}:
            last -= 1
        found_lines[field] = (at + 1, last + 1)
    return found_lines


def _complete(data: Mapping[str, Any], default: Policy) -> Policy:
    """Return the policy of checked data, with the values of `default` where it has none."""
    namespaces = data.get("namespaces", {})
    return Policy(
        file=default.file,
        lines=default.lines,
        drivers=tuple(data.get("drivers", default.drivers)),
        folders=_folders(namespaces.get("folders", default.folders)),
        processes=namespaces.get("processes", default.processes),
        sockets=_folders(data.get("sockets", default.sockets)),
        vsock=tuple(map(_range, data["vsock"])) if "vsock" in data else default.vsock,
        runtimes=tuple(data.get("runtimes", default.runtimes)),
        devices=_devices(data.get("devices", default.devices)),
        physical_devices=_devices(data.get("physicalDevices", default.physical_devices)),
        libvirt_uris=tuple(data.get("libvirtUris", default.libvirt_uris)),
        libvirt_domains=_devices(data.get("libvirtDomains", default.libvirt_domains)),
        rules_files=_folders(data.get("rulesFiles", default.rules_files)),
        push=tuple(data.get("pushAgent", default.push)),
    )


def _folders(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(canonical, paths))


def _range(written: int | str) -> tuple[int, int]:
    first, _, last = str(written).partition("-")
    return int(first), int(last or first)


def _devices(patterns: Mapping[str, Iterable[str]]) -> Devices:
    return MappingProxyType({sandboxes: tuple(devices) for sandboxes, devices in patterns.items()})
