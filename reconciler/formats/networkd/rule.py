"""The [RoutingPolicyRule] sections of a .network file."""

from __future__ import annotations

import re

from reconciler.formats.entry import NO_PRIORITY
from reconciler.formats.networkd.route import read_table
from reconciler.formats.networkd.syntax import Document, Section
from reconciler.formats.static import PROTOCOLS, read_mark, read_selector
from reconciler.model.address import is_ipv6
from reconciler.model.rule import ALL_BITS, NO_SUPPRESSION, REJECT_ACTIONS, Rule
from reconciler.values import replace

_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?\Z")


def read(document: Document) -> None:
    """Read the rules. One with a setting that is not known is left out: it would select other packets."""
    for section in document.each("RoutingPolicyRule"):
        rule = _read_rule(section)
        if rule is None:
            continue
        family = (section.text("Family") or "").lower()
        families = ["ipv4", "ipv6"] if family == "both" else [family] if family in ("ipv4", "ipv6") else [rule.family]
        for each in families:
            document.found.add(section.path, replace(rule, family=each))


def _read_rule(section: Section) -> Rule | None:
    found = section.found
    source, to = read_selector(section, "From"), read_selector(section, "To")
    mark, mask = read_mark(section, "FirewallMark")
    l3mdev, invert = bool(section.flag("L3MasterDevice")), bool(section.flag("InvertRule"))
    goto, action = section.number("GoTo", 0, ALL_BITS), (section.text("Type") or "table").lower()
    priority, tos = section.number("Priority", 0, ALL_BITS), section.number("TypeOfService", 0, 255)
    suppress = section.number("SuppressPrefixLength", 0, 128)
    sport, dport = _read_range(section, "SourcePort", 0xFFFF), _read_range(section, "DestinationPort", 0xFFFF)
    user = section.text("User") or ""
    uids = _read_range(section, "User", ALL_BITS) if user[:1].isdecimal() else None
    iif, oif = section.text("IncomingInterface"), section.text("OutgoingInterface")
    protocol = _read_protocol(section)
    table = read_table(section, "Table")
    section.get("Family")
    unknown = [key for key in section.left() if section.get(key)]
    why = f"no manifest has {', '.join(unknown)}" if unknown else ""
    if user and not uids:
        why = f"only its host knows which number the user {user} has"
    if action not in ("table", *REJECT_ACTIONS):
        why = f"no manifest has the type {action}"
    if why:
        found.skip(section.path, f"the rule: {why}")
        return None
    if table is None or protocol is None:
        return None
    ipv6 = any(is_ipv6(section.text(key) or "") for key in ("From", "To"))
    action = "goto" if goto is not None else action
    return Rule(
        family="ipv6" if ipv6 else "ipv4",
        priority=NO_PRIORITY if priority is None else priority,
        from_=source,
        to=to,
        iif=iif,
        oif=oif,
        fwmark=mark,
        fwmask=mask,
        ipproto=protocol,
        sport=sport,
        dport=dport,
        uidrange=uids,
        tos=tos or 0,
        suppress_prefixlength=NO_SUPPRESSION if suppress is None else suppress,
        l3mdev=l3mdev,
        invert=invert,
        action=action,
        table=0 if l3mdev or action != "table" else table,
        goto=goto or 0,
    )


def _read_range(section: Section, key: str, limit: int) -> tuple[int, int] | None:
    text = section.text(key)
    if text is None:
        return None
    match = _RANGE.match(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last <= limit:
        section.found.fault(section.at(key), f'"{text}": expected a number or a range up to {limit}')
        return None
    return first, last


def _read_protocol(section: Section) -> int | None:
    """Read the number of a protocol; 0 for any. None, reported, if it is not known."""
    text = (section.text("IPProtocol") or "0").lower()
    if text.isascii() and text.isdecimal() and int(text) <= 255:
        return int(text)
    if text not in PROTOCOLS:
        section.found.skip(section.path, f"the rule: the protocol {text} has no number here")
    return PROTOCOLS.get(text)
