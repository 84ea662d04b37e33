"""Which notation a text of another program is in, by its beginning."""

from __future__ import annotations

import re

from reconciler.formats.ip_json.listing import BEGINNING
from reconciler.formats.ipvsadm.rules import PROGRAM

KATA, IPVSADM, KEEPALIVED = "kata", "ipvsadm", "keepalived"
IP, NETPLAN, NETWORKD, NMSTATE = "ip", "netplan", "networkd", "nmstate"
NOTATIONS = (KATA, IPVSADM, KEEPALIVED, IP, NETPLAN, NETWORKD, NMSTATE)

# The first character that is neither blank nor in a comment, nor in a line that only begins a document of YAML.
_START = re.compile(r"^[ \t]*(?!---[ \t]*(?:#|$))([^ \t\n#!;])", re.MULTILINE)
_NMSTATE_KEYS = (
    "capture description desired desiredState dns dns-resolver hostname interfaces ovn ovs-db route-rules routes"
)
# How each notation begins there. An earlier one comes first.
_BEGINNINGS = {
    NETWORKD: re.compile(r"\[[A-Z][A-Za-z0-9-]*\][ \t]*(?:\n|\Z)"),
    IP: BEGINNING,
    NETPLAN: re.compile(r"""(?:\{\s*)?["']?network["']?[ \t]*:(?:\s|\{|\Z)"""),
    NMSTATE: re.compile(
        rf"""(?:\{{\s*)?["']?(?:{_NMSTATE_KEYS.replace(" ", "|")})["']?[ \t]*:(?:\s|[\[{{]|\Z)"""
        r"""|apiVersion:[ \t]*["']?nmstate\.io/"""
    ),
    KATA: re.compile(r"[\[{]|null\b"),
    IPVSADM: re.compile(rf"--?[A-Za-z]|{PROGRAM}\b"),
    KEEPALIVED: re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?=[\s{]|\Z)|[$@~]"),
}
# What is included is part of a file, and may begin with an address or a brace. The file of passwords does not.
INCLUDED = re.compile(
    r"(?:[ \t]*(?:[#!][^\n]*)?\n)*[ \t]*(?:[A-Za-z_][A-Za-z0-9_]*(?=[\s{]|\Z)|[0-9A-Fa-f:.]+[\s/-]|[{}$@~#!]|\Z)"
)


def recognise(text: str) -> str:
    """Return the notation of a text, recognised by its first line that is no comment. ValueError if it is unknown."""
    match = _START.search(text)
    if match is None:
        raise ValueError("is empty")
    for notation, beginning in _BEGINNINGS.items():
        if beginning.match(text, match.start(1)):
            return notation
    raise ValueError(f"is in no known notation ({', '.join(NOTATIONS)})")


def is_networkd(text: str) -> bool:
    """Return whether a text begins with the header of a section, as a file of networkd does, or has only comments."""
    match = _START.search(text)
    return match is None or _BEGINNINGS[NETWORKD].match(text, match.start(1)) is not None


def check_beginning(text: str) -> None:
    """Raise ValueError if a text, whose notation was named, begins as none does: nothing of it is shown."""
    match = _START.search(text)
    begins = match and any(each.match(text, match.start(1)) for each in _BEGINNINGS.values())
    if text.strip() and not begins and not INCLUDED.match(text):
        raise ValueError(f"begins as a file in no known notation does ({', '.join(NOTATIONS)})")
