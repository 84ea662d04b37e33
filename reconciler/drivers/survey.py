"""All that is in a sandbox, whoever made it, as `import --live` prints it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from reconciler.drivers import home
from reconciler.drivers.adopting import made_by_others
from reconciler.drivers.provenance import doubt
from reconciler.model.interface import NAME_MAX, is_manifest_name
from reconciler.model.sandbox import Observed
from reconciler.netlink.channel import Channel
from reconciler.netlink.interface import Link
from reconciler.values import NamedTuple


class Inventory(NamedTuple):
    """What was observed. NICs of other owners that can be adopted are among its interfaces: see `around.unrecorded`.

    `left`: the other links, each by its name with the reason, in words.
    """

    observed: Observed
    left: dict[str, str]


def sort_made(others: Mapping[str, Link]) -> tuple[dict[str, Link], dict[str, Link]]:
    """Return the links of other owners that are made in the sandbox, by their keys, and the others, by their names."""
    made = made_by_others(others)
    return made, {name: link for name, link in others.items() if link not in made.values()}


def sort(others: Mapping[str, Link], sandbox: str, channel: Channel) -> tuple[dict[str, Link], dict[str, str]]:
    """Return the links of other owners that a manifest can have, by a name for their device; and `Inventory.left`."""
    left = {name: words for name, link in others.items() if (words := _objection(link, channel))}
    names = set(home.names())
    taken: dict[str, Link] = {}
    for name, link in others.items():
        if name not in left:
            device = _free_name(sandbox, name, names | taken.keys())
            taken[device] = link
    return taken, left


def _objection(link: Link, channel: Channel) -> str:
    """Return why a manifest that adopts a link cannot have it, or ""."""
    reason = doubt(link, channel)
    return f"nothing proves that it is a device of this host: {reason}" if reason else ""


def _free_name(sandbox: str, nic: str, taken: Collection[str]) -> str:
    """Return a name for the device of a NIC on the host, which it will get there when it leaves the sandbox."""
    return next(name for name in _names(sandbox, nic) if name not in taken and is_manifest_name(name))


def _names(sandbox: str, nic: str) -> Iterator[str]:
    """Yield names with both, as far as there is room for them: that of the sandbox is cut first."""
    text = re.sub(r"[^A-Za-z0-9_.-]", "-", sandbox)
    text = text if text[0].isalpha() else f"r-{text}"
    for number in range(10**6):
        end = f"-{nic}{f'-{number}' if number else ''}"[-NAME_MAX + 1 :]
        yield f"{text[: NAME_MAX - len(end)]}{end}"
