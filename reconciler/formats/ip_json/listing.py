"""A listing of `ip -j` as a whole: an array of objects, each of which shows by its keys what it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reconciler.formats.entry import Entry, Found
from reconciler.formats.ip_json import link, neighbour, route, rule

# Keys that begin an object of `ip -j`, also if a program has sorted them. None is a field of kata-runtime.
_KEYS = (
    "action", "addr_info", "address", "age", "dev", "dst", "flags", "fwmark", "ifindex", "ifname", "iif",
    "link", "link_index", "link_netnsid", "lladdr", "not", "oif", "priority", "protocol", "src", "state",
    "type",
)  # fmt: skip
BEGINNING = re.compile(rf'(?:\[\s*\]\s*)*\[\s*(?:\{{\s*\}}\s*,\s*)*\{{\s*"(?:{"|".join(_KEYS)})"\s*:')


# Between two listings in one file: the end of the line of the first one.
_NEXT = re.compile(r"(?<=\])[ \t]*\n(?=\s*\[)")
# More than there are kinds of listings, of both families.
LISTINGS_MAX = 20


def separate(text: str) -> Iterator[tuple[int, str]]:
    """Yield the listings of a text that has several one after another: how many lines are above each, and its text."""
    above = 0
    for part in _NEXT.split(text, LISTINGS_MAX - 1):
        yield above, part
        above += part.count("\n") + 1


def read(data: Any, found: Found) -> None:
    """Read a listing: an array, or one object of it."""
    items = data if isinstance(data, list) else [data]
    readers: list[tuple[Entry, Callable[[Entry], None]]] = []
    rules: list[Entry] = []
    for index, item in enumerate(items):
        # `ip -j -4 addr` prints an empty object for each link that it leaves out.
        if item == {}:
            continue
        entry = Entry(item, (index,) if isinstance(data, list) else (), found)
        keys: Mapping[str, Any] = item if isinstance(item, dict) else {}
        if "ifname" in keys:
            readers.append((entry, link.read))
        elif "priority" in keys:
            rules.append(entry)
        elif "dst" in keys:
            is_neighbour = keys.keys() & {"lladdr", "state", "proxy"}
            readers.append((entry, neighbour.read if is_neighbour else route.read))
        elif keys:
            found.fault(entry.path, "is no link, route, rule or neighbour of `ip -j`")
    links = [each for each in items if isinstance(each, dict) and each.get("ifname") not in (None, "lo")]
    if links and not any("linkinfo" in each or "num_tx_queues" in each for each in links):
        found.note((), "this listing has no kinds of links (`ip -d` lists them); bridges and bonds are not known by it")
    for entry, reader in readers:
        reader(entry)
    rule.read(rules, found)
    for what, count in found.counted.items():
        found.skip((), f"{what}: {count:,}")
