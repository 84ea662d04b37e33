"""Rules of policy routing, in the JSON of `ip -j rule`."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.formats.entry import Entry, Found
from reconciler.formats.ip_json import names
from reconciler.formats.static import PROTOCOLS
from reconciler.model.address import is_ipv6, network
from reconciler.model.rule import ALL_BITS, NO_SUPPRESSION, REJECT_ACTIONS, Rule

# Priority and table of the kernel's own rules; IPv6 has no rule for the table default.
_KERNELS = {(0, 255), (32766, 254), (32767, 253)}
_STATE = ("iif_detached", "oif_detached", "unresolved")
_SELECTORS = ("dst", "fwmark", "iif", "oif", "ipproto", "sport", "dport", "uid_start", "tos", "not", "l3mdev")


def read(entries: Sequence[Entry], found: Found) -> None:
    """Read the rules of one listing, which is of one family."""
    family = _family(entries)
    if family is None and entries:
        family = "ipv4"
        if not all(map(_is_kernels, entries)):
            found.note((), "nothing shows the family of these rules; imported as IPv4")
    for entry in entries:
        if _is_kernels(entry) or names.is_kernels(entry.text("protocol") or ""):
            found.count("objects that the kernel makes by itself")
        elif rule := _read_rule(entry, family or "ipv4"):
            found.add(entry.path, rule)


def _family(entries: Sequence[Entry]) -> str | None:
    """Return the family of a listing: that of a network in it, or by the kernel's own rules; None if none is there."""
    for entry in entries:
        for key in ("src", "dst"):
            text = str(entry.get(key) or "all")
            if text != "all":
                return "ipv6" if is_ipv6(text) else "ipv4"
    kernels = {number for entry in entries if _is_kernels(entry) for number in (entry.number("priority", 0, ALL_BITS),)}
    if 32767 in kernels:
        return "ipv4"
    return "ipv6" if 32766 in kernels else None


def _is_kernels(entry: Entry) -> bool:
    priority, table = entry.get("priority"), names.TABLES.get(str(entry.get("table")), entry.get("table"))
    number = int(table) if str(table).isdecimal() else None
    plain = str(entry.get("src") or "all") == "all" and not any(map(entry.has, _SELECTORS))
    return plain and (priority, number) in _KERNELS


def _read_rule(entry: Entry, family: str) -> Rule | None:
    """Read a rule. None if it has anything that no manifest can say: without that, it would select other packets."""
    found, priority = entry.found, entry.number("priority", 0, ALL_BITS)
    source, to = _network(entry, "src"), _network(entry, "dst")
    fwmark, fwmask = _mark(entry)
    sport, dport = _range(entry, "sport"), _range(entry, "dport")
    first, last = entry.number("uid_start", 0, ALL_BITS), entry.number("uid_end", 0, ALL_BITS)
    tos = entry.number("tos", 0, 255) or 0
    ipproto = _protocol(entry)
    invert, l3mdev = entry.has("not"), entry.has("l3mdev")
    goto = entry.number("goto", 0, ALL_BITS) if entry.get("goto") != "none" else None
    action = entry.text("action")
    table = 0 if l3mdev or action or goto is not None else names.table(entry)
    entry.get("table")
    suppress = entry.number("suppress_prefixlen", 0, 128)
    iif, oif = entry.text("iif"), entry.text("oif")
    keeper = names.keeper(entry.text("protocol") or "")
    entry.drop((*_STATE, "not", "l3mdev"))
    unknown = list(entry.left())
    why = keeper or (f"no manifest has {', '.join(unknown)}" if unknown else "")
    if action and action not in REJECT_ACTIONS:
        why = f"no manifest has the action {action}"
    if why:
        found.skip(entry.path, f"rule {priority}: {why}")
        return None
    if priority is None or table is None or ipproto is None:
        return None
    return Rule(
        family=family,
        priority=priority,
        from_=source,
        to=to,
        iif=iif,
        oif=oif,
        fwmark=fwmark,
        fwmask=fwmask,
        ipproto=ipproto,
        sport=sport,
        dport=dport,
        uidrange=None if first is None or last is None else (first, last),
        tos=tos,
        suppress_prefixlength=NO_SUPPRESSION if suppress is None else suppress,
        l3mdev=l3mdev,
        invert=invert,
        action=action or ("goto" if goto is not None else "table"),
        table=table,
        goto=goto or 0,
    )


def _network(entry: Entry, key: str) -> str | None:
    text, length = entry.text(key), entry.number(f"{key}len", 0, 128)
    if text in (None, "all", "default"):
        return None
    try:
        found = network(f"{text}/{length}" if length is not None else str(text))
    except ValueError as error:
        entry.found.fault(entry.at(key), str(error))
        return None
    return None if found.endswith("/0") else found


def _mark(entry: Entry) -> tuple[int, int]:
    mark, mask = entry.number("fwmark", 0, ALL_BITS), entry.number("fwmask", 0, ALL_BITS)
    if mark is None:
        return 0, 0
    return mark, ALL_BITS if mask is None else mask


def _range(entry: Entry, key: str) -> tuple[int, int] | None:
    only = entry.number(key, 0, 0xFFFF)
    first, last = entry.number(f"{key}_start", 0, 0xFFFF), entry.number(f"{key}_end", 0, 0xFFFF)
    if only is not None:
        return only, only
    return None if first is None or last is None else (first, last)


def _protocol(entry: Entry) -> int | None:
    """Read the number of a protocol; 0 for any. None if only the host knows its name: that is reported."""
    text = entry.text("ipproto")
    if text is None:
        return 0
    # iproute2 writes a protocol without a name so.
    text = text.removeprefix("ipproto-")
    if text.isascii() and text.isdecimal() and int(text) <= 255:
        return int(text)
    if text not in PROTOCOLS:
        entry.found.skip(entry.path, f'only its host knows which protocol "{text}" is; list it with `ip -N -j`')
    return PROTOCOLS.get(text)
