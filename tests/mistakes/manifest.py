"""A manifest without a mistake, and what a row of a table is: one mistake in it, and the whole message about it.

Each row has the grade that a colleague would give the message: `excellent` if it says what is wrong, where, and what to
write instead; `good` if a person finds that out without a look into the docs. A row with a worse one is not kept: the
message is rewritten where it comes from.
"""

from __future__ import annotations

from typing import NamedTuple

GRADES = ("excellent", "good")

MANIFEST = """\
apiVersion: reconciler/v1
sandbox: web-1
driver:
  netns: {name: web-1}
interfaces:
  - name: eth0
    device: tap0
    hwAddr: 02:42:20:6f:a3:69
    mtu: 1500
    addresses: [192.0.2.10/24, "2001:db8::10/64"]
routes:
  - {dest: default, gateway: 192.0.2.1, device: eth0}
  - {dest: 198.51.100.0/24, gateway: 192.0.2.2, device: eth0}
"""
# What a row can have below that.
IPVS = """\
ipvs:
  services:
    - tcp: 192.0.2.10:80
      scheduler: rr
      servers:
        - {address: 192.0.2.4:80, weight: 100}
"""


class Row(NamedTuple):
    """A mistake: `new` in place of `old`, in what stands `below` the manifest or else in itself. The message."""

    name: str
    grade: str
    old: str
    new: str
    message: str
    below: str = ""

    @property
    def text(self) -> str:
        """Return the manifest with the mistake."""
        place = self.below or MANIFEST
        assert self.old in place, "the mistake is not made"
        mistaken = place.replace(self.old, self.new, 1)
        return MANIFEST + mistaken if self.below else mistaken
