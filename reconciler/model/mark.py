"""What marks an object of the kernel as ours."""

from __future__ import annotations

# The protocol of our routes, rules and neighbours (rtm_protocol, FRA_PROTOCOL, NDA_PROTOCOL): linux/rtnetlink.h leaves
# 192 to 255 to programs other than the kernel.
PROTOCOL = 200

# The alias (IFLA_IFALIAS) of links that we made in a sandbox begins so; the name follows that they should have. Whoever
# can change it can delete the link as well.
_MADE = "reconciler: made as "


def made_alias(name: str) -> str:
    """Return the alias that marks a link that is made in a sandbox as ours. `name`: that in the manifest."""
    return _MADE + name


def made_name(alias: str) -> str:
    """Return the name that a manifest had for a link that we made, by its alias; "" if that is not our mark."""
    return alias.removeprefix(_MADE) if alias.startswith(_MADE) else ""
