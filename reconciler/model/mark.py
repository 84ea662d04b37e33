"""What marks an object of the kernel as ours."""

from __future__ import annotations

from collections.abc import Iterable

# The protocol of our routes, rules and neighbours (rtm_protocol, FRA_PROTOCOL, NDA_PROTOCOL): linux/rtnetlink.h leaves
# 192 to 255 to programs other than the kernel.
PROTOCOL = 200

# An alternative name (IFLA_ALT_IFNAME) of links that we made in a sandbox begins so; the name follows that they should
# have. No two links of a namespace have the same one. Whoever can change it can delete the link as well.
OWN_ALTNAMES = "reconciler."
_MADE = f"{OWN_ALTNAMES}made."


def made_altname(name: str) -> str:
    """Return the alternative name that marks a link that is made in a sandbox as ours. `name`: that in the manifest."""
    return _MADE + name


def made_name(altnames: Iterable[str]) -> str:
    """Return the name that a manifest had for a link that we made, by its alternative names; "" if none is our mark."""
    return next((each.removeprefix(_MADE) for each in altnames if each.startswith(_MADE)), "")


def without_mark(altnames: Iterable[str]) -> tuple[str, ...]:
    """Return the alternative names of a link that are no mark of ours."""
    return tuple(each for each in altnames if not each.startswith(OWN_ALTNAMES))
