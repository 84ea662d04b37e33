"""The simple attributes of a link, in one table: each is one value that the kernel changes in place.

A new attribute is a line here, a property of the schema, and rows in docs/manifest.md and tests/completeness. One that
a manifest leaves out stays as it is. A device gets those back that it had on the host when it returns there.
Source: include/uapi/linux/if_link.h (IFLA_*), if.h (IFF_*).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

from reconciler.values import NamedTuple
from reconciler.wording import quote

Value = bool | int | str
# (field, value), in the order of ATTRIBUTES.
Attributes = tuple[tuple[str, Value], ...]


# Bytes of a text: IFALIASZ of linux/if.h is 256, and the kernel adds a NUL.
TEXT_MAX = 255
_NO_TEXT = re.compile("[\0-\x1f\x7f\ud800-\udfff]")


class Attribute(NamedTuple):
    """An attribute: its field in a manifest, its word for iproute2, its number and its kind.

    `number`: IFLA_* of a number or a text; the bit IFF_* of a flag, which is true if the bit is set, or if it is not
    (`no flag`). `usual`: what nearly all devices have. `least` and `most`: the numbers that a manifest can have, as the
    schema says.
    """

    field: str
    word: str
    number: int
    kind: Literal["number", "text", "flag", "no flag"]
    usual: Value
    least: int = 0
    most: int = 0

    @property
    def is_flag(self) -> bool:
        """Return whether it is a flag of the link."""
        return self.kind in {"flag", "no flag"}

    def is_expressible(self, value: Value) -> bool:
        """Return whether a manifest can have a value that the kernel has."""
        if isinstance(value, str):
            # A byte that is no UTF-8 is a surrogate (PEP 383).
            return len(value.encode(errors="replace")) <= TEXT_MAX and _NO_TEXT.search(value) is None
        return self.kind != "number" or self.least <= int(value) <= self.most

    def words(self, value: Value) -> str:
        """Return the attribute with a value as iproute2 writes it."""
        if isinstance(value, bool):
            return f"{self.word} {'on' if value else 'off'}"
        return f"{self.word} {quote(value) if isinstance(value, str) else value}"


ATTRIBUTES = (
    Attribute("alias", "alias", 20, "text", ""),
    Attribute("txQueueLen", "txqueuelen", 13, "number", 1000, 1, 1_000_000),
    # GSO_LEGACY_MAX_SIZE of linux/netdevice.h
    Attribute("gsoMaxSize", "gso_max_size", 41, "number", 65536, 1500, 524_280),
    Attribute("arp", "arp", 0x80, "no flag", usual=True),
    Attribute("allmulticast", "allmulticast", 0x200, "flag", usual=False),
)
BY_FIELD: Mapping[str, Attribute] = {attribute.field: attribute for attribute in ATTRIBUTES}


def named(found: Attributes, fields: Collection[str]) -> Attributes:
    """Return the attributes that have these fields."""
    return tuple(each for each in found if each[0] in fields)


def unusual(found: Attributes) -> Attributes:
    """Return the attributes of a link that most links do not have and that a manifest can have."""
    return tuple(
        (field, value)
        for field, value in found
        if value != BY_FIELD[field].usual and BY_FIELD[field].is_expressible(value)
    )


def changed(before: Attributes, after: Attributes) -> Attributes:
    """Return the attributes to set so that a link that has those before has those after; a usual one may be unnamed."""
    had = {field: each.usual for field, each in BY_FIELD.items()} | dict(before)
    return tuple((field, value) for field, value in after if had[field] != value)


def words(attributes: Attributes) -> list[str]:
    """Return attributes as iproute2 writes them, one word or two each."""
    return [BY_FIELD[field].words(value) for field, value in attributes]
