"""A rule of policy routing in a manifest: checked data → model, and model → data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.section import Draft, ListSection, iproute2_words, refused_by_kata
from reconciler.model.address import family_name, is_ipv6, parse_network
from reconciler.model.rule import ALL_BITS, NO_SUPPRESSION, REJECT_ACTIONS, Rule, range_text
from reconciler.values import replace

# The names of iproute2 and of /etc/protocols for what rules select by; any other is a number.
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "sctp": 132}
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
_PORTS, _UIDS = 0xFFFF, 0xFFFFFFFE
# A rule has exactly one of these fields, which decides where a packet goes.
_DECISIONS = ("table", "l3mdev", "goto", "action")


def read(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> Rule | None:
    """Read a rule that meets the schema. What else is wrong with it is added to `findings`; then there is none."""
    before = len(findings)
    from_, to = _read_network(data, "from", path, findings), _read_network(data, "to", path, findings)
    family = _read_family(data, (from_, to), path, findings)
    fwmark, fwmask = _read_mark(data, path, findings)
    sport, dport = (_read_range(data, field, _PORTS, path, findings) for field in ("sport", "dport"))
    uidrange = _read_range(data, "uidrange", _UIDS, path, findings)
    _check_decision(data, path, findings)
    if len(findings) > before:
        return None
    ipproto = data.get("ipproto", 0)
    return Rule(
        family=family,
        priority=data["priority"],
        from_=from_,
        to=to,
        iif=data.get("iif"),
        oif=data.get("oif"),
        fwmark=fwmark,
        fwmask=fwmask,
        ipproto=PROTOCOLS.get(ipproto, ipproto),
        sport=sport,
        dport=dport,
        uidrange=uidrange,
        tos=data.get("tos", 0),
        suppress_prefixlength=data.get("suppressPrefixlength", NO_SUPPRESSION),
        l3mdev=data.get("l3mdev", False),
        invert=data.get("invert", False),
        action=data.get("action", "goto" if "goto" in data else "table"),
        table=data.get("table", 0),
        goto=data.get("goto", 0),
    )


def _read_network(data: Mapping[str, Any], field: str, path: Path, findings: list[Finding]) -> str | None:
    """Read a network that packets are selected by; one of length 0 selects all of them."""
    if field not in data:
        return None
    try:
        network = parse_network(data[field])
    except ValueError as error:
        findings.append(Finding((*path, field), str(error)))
        return None
    if network.endswith("/0"):
        findings.append(Finding((*path, field), f"{network} is every address; leave the field out"))
    return network


def _read_family(
    data: Mapping[str, Any], networks: tuple[str | None, str | None], path: Path, findings: list[Finding]
) -> str:
    """Read the family; without a field, that of its networks, or IPv4."""
    families = {is_ipv6(each) for each in networks if each}
    family = str(data.get("family", "ipv6" if True in families else "ipv4"))
    for field, network in zip(("from", "to"), networks, strict=True):
        if network and is_ipv6(network) != (family == "ipv6"):
            name = "IPv6" if family == "ipv6" else "IPv4"
            findings.append(Finding((*path, field), f"{network} is {family_name(network)}, and the rule is {name}"))
    limit = 128 if family == "ipv6" else 32
    if data.get("suppressPrefixlength", 0) > limit:
        findings.append(Finding((*path, "suppressPrefixlength"), f"a prefix of this rule has at most {limit} bits"))
    return family


def _read_mark(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> tuple[int, int]:
    """Read `fwmark`: a number, or text such as `0x10/0xff` with a mask. Returns the mark and its mask, 0 for none."""
    if "fwmark" not in data:
        return 0, 0
    mark, slash, mask = str(data["fwmark"]).partition("/")
    number, bits = int(mark, 0), int(mask, 0) if slash else ALL_BITS
    if max(number, bits) > ALL_BITS:
        findings.append(Finding((*path, "fwmark"), f"{data['fwmark']} has more than 32 bits"))
    elif not bits:
        findings.append(Finding((*path, "fwmark"), "a mask of 0 compares nothing; leave the field out"))
    elif number & ~bits:
        # net/core/fib_rules.c, fib_rule_match
        same = f"{number & bits:#x}/{bits:#x}"
        message = f"{data['fwmark']} has bits outside its mask, which the kernel ignores; the same is {same}"
        findings.append(Finding((*path, "fwmark"), message))
    return number, bits


def _read_range(
    data: Mapping[str, Any], field: str, limit: int, path: Path, findings: list[Finding]
) -> tuple[int, int] | None:
    """Read a number or a range `first-last`."""
    if field not in data:
        return None
    first, dash, last = str(data[field]).partition("-")
    found = int(first), int(last if dash else first)
    if found[1] > limit:
        findings.append(Finding((*path, field), f"{data[field]} is above {limit}"))
    elif found[0] > found[1]:
        findings.append(Finding((*path, field), f"{data[field]} ends before it begins"))
    return found


def _check_decision(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> None:
    given = [field for field in _DECISIONS if data.get(field)]
    if not given:
        expected = f"one of table, l3mdev: true, goto, action ({', '.join(REJECT_ACTIONS)})"
        findings.append(Finding((*path, "table"), f"missing; expected {expected}"))
    for field in given[1:]:
        findings.append(Finding((*path, field), f"{given[0]} and {field} exclude each other", at_key=True))
    if given == ["goto"] and data["goto"] <= data["priority"]:
        message = (
            f"{data['goto']} is not above the rule's own priority, {data['priority']}: the kernel only goes forward"
        )
        findings.append(Finding((*path, "goto"), message))
    if "suppressPrefixlength" in data and given and given[0] in ("goto", "action"):
        findings.append(
            Finding((*path, "suppressPrefixlength"), f"is about routes of a table, and {given[0]} has none")
        )


def write(rule: Rule) -> dict[str, Any]:
    """Return the data of a rule, without defaults."""
    networks = [each for each in (rule.from_, rule.to) if each]
    implied = "ipv6" if any(map(is_ipv6, networks)) else "ipv4"
    fields: tuple[tuple[str, Any, Any], ...] = (
        ("family", rule.family, implied),
        ("from", rule.from_, None),
        ("to", rule.to, None),
        ("iif", rule.iif, None),
        ("oif", rule.oif, None),
        ("fwmark", _write_mark(rule), None),
        ("ipproto", _PROTOCOL_NAMES.get(rule.ipproto, rule.ipproto), 0),
        ("sport", _write_range(rule.sport), None),
        ("dport", _write_range(rule.dport), None),
        ("uidrange", _write_range(rule.uidrange), None),
        ("tos", rule.tos, 0),
        ("invert", rule.invert, False),
        ("l3mdev", rule.l3mdev, False),
        ("table", rule.table, 0),
        ("goto", rule.goto, 0),
        ("action", rule.action if rule.action in REJECT_ACTIONS else None, None),
        ("suppressPrefixlength", rule.suppress_prefixlength, NO_SUPPRESSION),
    )
    return {"priority": rule.priority} | {field: value for field, value, default in fields if value != default}


def _write_mark(rule: Rule) -> str | int | None:
    return rule.fwmark if rule.fwmask == ALL_BITS else rule.mark


def _write_range(found: tuple[int, int] | None) -> str | int | None:
    return found and (found[0] if found[0] == found[1] else range_text(found))


def _check(draft: Draft) -> Iterator[Finding]:
    first: dict[Rule, tuple[int, Rule]] = {}
    for index, rule in enumerate(draft.items(SECTION)):
        if rule is None:
            continue
        # The kernel compares neither.
        at, other = first.setdefault(replace(rule, invert=False, goto=0), (index, rule))
        if at == index:
            continue
        reason = "the kernel accepts only one of the two; give another priority"
        alike = "is the same rule already" if rule == other else f"differs only in invert or goto, and {reason}"
        yield Finding((SECTION.name, index), f"rules[{at}] {alike}")


SECTION = ListSection(
    name=Rule.section,
    read_item=read,
    write_item=write,
    words=iproute2_words,
    checks=_check,
    kata_checks=refused_by_kata(Rule.section, "kata-runtime has no commands for policy rules"),
)
