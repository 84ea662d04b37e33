"""The checks of a manifest: checked data → model, and model → data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.section import Draft
from reconciler.manifest.service import split_address
from reconciler.model.address import is_link_local, is_unicast, parse_address
from reconciler.model.check import COUNT, EXPECT, HTTP_PORT, TIMEOUT, Check
from reconciler.model.ipvs import PORT_MAX

NAME = "checks"
_KINDS = ("ping", "tcp", "http", "route", "connects")
_URL = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[^\[\]/:]+)(?::([0-9]{1,5}))?(/[!-~]*)?")


def read(data: Mapping[str, Any], findings: list[Finding]) -> list[Check | None]:
    """Read the checks that meet the schema, with None in place of a wrong one; see `findings`."""
    items = data.get(NAME)
    if not isinstance(items, list):
        return []
    wrong = {finding.path[1] for finding in findings if finding.path[:1] == (NAME,) and len(finding.path) > 1}
    return [None if index in wrong else _read(item, (NAME, index), findings) for index, item in enumerate(items)]


def _read(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> Check | None:
    kind = next(each for each in _KINDS if each in data)
    where: Path = (*path, "connects", "service") if kind == "connects" else (*path, kind)
    text = str(data["connects"]["service"] if kind == "connects" else data[kind])
    try:
        address, port, rest = _target(kind, text)
    except ValueError as error:
        findings.append(Finding(where, str(error)))
        return None
    return Check(
        kind=kind,
        address=address,
        port=port,
        path=rest,
        expect=data.get("expect", EXPECT),
        device=data.get("device", ""),
        timeout=data.get("timeout", TIMEOUT),
        count=data.get("count", COUNT),
        from_host=data.get("from") == "host",
        required=data.get("required", False),
        on_repair=data.get("onRepair", False),
    )


def _target(kind: str, text: str) -> tuple[str, int, str]:
    """Return the address, the port and the path of a text. ValueError if it has no such."""
    rest = ""
    if kind in {"ping", "route"}:
        address, port = parse_address(text), 0
    elif kind == "http":
        found = _URL.fullmatch(text)
        if found is None:
            raise ValueError(f'"{text}" is not a URL with an address, such as http://192.0.2.1:8080/health')
        address, port, rest = parse_address(found[1].strip("[]")), int(found[2] or HTTP_PORT), found[3] or "/"
    else:
        address, given = split_address(text)
        if given is None:
            raise ValueError(f'"{text}" has no port; expected an address and port such as "192.0.2.1:443"')
        port = given
    if kind not in {"ping", "route"} and not 0 < port <= PORT_MAX:
        raise ValueError(f"port {port} is not from 1 to {PORT_MAX}")
    if not is_unicast(address):
        raise ValueError(f"{address} is not a unicast address")
    if is_link_local(address):
        raise ValueError(f"{address} is a link-local address, which says nothing without an interface")
    return address, port, rest


def check(checks: list[Check | None], draft: Draft) -> Iterator[Finding]:
    """Yield what is wrong with checks in this manifest: of a service that it lacks, or of what kata-runtime cannot."""
    for index, each in enumerate(checks):
        if each is None:
            continue
        if draft.driver == "kata" and not each.from_host:
            reason = "nothing can be run in a sandbox behind kata-runtime; a check of it needs from: host"
            yield Finding((NAME, index), reason)
        drafted = draft.sections.get("ipvs")
        if each.kind == "connects" and drafted is not None and not _has_service(drafted.ipvs, each):
            reason = "the manifest has no IPVS service of tcp with this address and port"
            yield Finding((NAME, index, "connects", "service"), reason)


def _has_service(ipvs: Any, check_: Check) -> bool:
    keys = {(each.protocol, each.address, each.port) for each in ipvs.services or ()}
    return ipvs.services is None or ("tcp", check_.address, check_.port) in keys


def write(check_: Check) -> dict[str, Any]:
    """Return the data of a check, without defaults."""
    target = check_.url if check_.kind == "http" else check_.target
    data: dict[str, Any] = {check_.kind: {"service": target} if check_.kind == "connects" else target}
    others = {
        "device": (check_.device, ""),
        "expect": (check_.expect, EXPECT),
        "timeout": (check_.timeout, TIMEOUT),
        "count": (check_.count, COUNT),
        "from": ("host" if check_.from_host else "sandbox", "sandbox"),
        "required": (check_.required, False),
        "onRepair": (check_.on_repair, False),
    }
    return data | {name: value for name, (value, default) in others.items() if value != default}
