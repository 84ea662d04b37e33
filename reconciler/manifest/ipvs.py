"""The IPVS section of a manifest: checked data → model, and model → data. Its services may be written as rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.manifest import service
from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.place import RULES, RULES_FILE, SERVICES
from reconciler.model.address import parse_network
from reconciler.model.ipvs import RULES_MAX, Excluded, Ipvs, Service, Timeouts
from reconciler.values import NamedTuple
from reconciler.wording import plural


class IpvsDraft(NamedTuple):
    """A section as far as it could be read. A service that is wrong is None, so that the others keep their indexes.

    `rules`: the services are written as rules, which are read together and have no duplicates.
    """

    ipvs: Ipvs
    services: list[Service | None]
    rules: bool


def read(data: Any, rules: str | None, findings: list[Finding]) -> IpvsDraft | None:
    """Read a section without what `findings` of the schema are about, and add what else is wrong to them.

    `rules`: the text of its `rulesFile`. Return None if the data is not a section at all.
    """
    if not isinstance(data, dict):
        return None
    flagged = {finding.path[1:3] for finding in findings if finding.path[:1] == ("ipvs",)}
    wrong = {path[0] for path in flagged if path}
    timeouts, sysctls = ({} if name in wrong else data.get(name, {}) for name in ("timeouts", "sysctls"))
    services = _read_services(data, rules, flagged, findings)
    if services and ("services",) not in flagged:
        findings += _count([each for each in services if each])
    section = Ipvs(
        services=None if services is None else tuple([each for each in services if each]),
        timeouts=Timeouts(**{field: seconds or None for field, seconds in timeouts.items()}),
        sysctls=tuple(sorted(sysctls.items())),
        exclude=_read_exclude(data.get("exclude"), flagged, findings),
        drain=0 if "drain" in wrong else data.get("drain", 0),
        guard="" if "guard" in wrong else data.get("guard", ""),
    )
    return IpvsDraft(section, services or [], rules="services" not in data)


def _read_exclude(items: Any, flagged: set[Path], findings: list[Finding]) -> tuple[Excluded, ...]:
    """Read `exclude`. Return nothing if an item is wrong, so that the indexes of the others are not shifted."""
    excluded: list[Excluded] = []
    items = items if isinstance(items, list) else []
    for index, item in enumerate(items):
        try:
            if ("exclude", index) not in flagged:
                excluded.append(_excluded(item))
        except ValueError as error:
            findings.append(Finding(("ipvs", "exclude", index), str(error)))
    return tuple(excluded) if len(excluded) == len(items) else ()


def _excluded(item: str | Mapping[str, int]) -> Excluded:
    return Excluded(prefix=parse_network(item)) if isinstance(item, str) else Excluded(fwmark=item["fwmark"])


def _read_services(
    data: Mapping[str, Any], rules: str | None, flagged: set[Path], findings: list[Finding]
) -> list[Service | None] | None:
    if isinstance(data.get("services"), list):
        cache: service.Cache = {}
        return [
            None
            if flagged and ("services", index) in flagged
            else service.read(item, ("ipvs", "services", index), findings, cache)
            for index, item in enumerate(data["services"])
        ]
    if "rules" in data and ("rules",) not in flagged:
        return _read_rules(data["rules"], RULES, findings)
    if rules is not None:
        return _read_rules(rules, RULES_FILE, findings)
    return None


def _count(services: Sequence[Service]) -> Iterator[Finding]:
    servers = sum([len(each.servers) for each in services])
    count = len(services) + servers
    if count > RULES_MAX:
        parts = f"{len(services):,} {plural('service', len(services))} and {servers:,} {plural('server', servers)}"
        yield Finding(SERVICES, f"{count:,} rules ({parts}); at most {RULES_MAX:,} are allowed")


def _read_rules(text: str, path: Path, findings: list[Finding]) -> list[Service | None]:
    from reconciler.formats.ipvsadm.rules import parse_rules

    before = len(findings)
    services = parse_rules(text, lambda line, message: findings.append(Finding(path, message, line=line)))
    if len(findings) > before:
        # Findings name services by their number in the text, which would be wrong without the wrong lines.
        return []
    if not services:
        findings.append(Finding(path, "contains no rule; to have no services, write `services: []`"))
    return [*services]


def write(section: Ipvs) -> dict[str, Any]:
    """Return the data of a section, without defaults."""
    fields = {
        "timeouts": {field: seconds for field, seconds in section.timeouts._asdict().items() if seconds},
        "sysctls": dict(section.sysctls),
        "exclude": [_write_excluded(each) for each in section.exclude],
        "drain": section.drain,
        "guard": section.guard,
    }
    data = {field: value for field, value in fields.items() if value}
    if section.services is not None:
        data["services"] = [service.write(each) for each in section.services]
    return data


def _write_excluded(each: Excluded) -> str | dict[str, Any]:
    return each.prefix if each.prefix is not None else {"fwmark": each.fwmark}
