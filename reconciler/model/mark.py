"""What marks an object of the kernel as ours."""

from __future__ import annotations

# The protocol of our routes, rules and neighbours (rtm_protocol, FRA_PROTOCOL, NDA_PROTOCOL): linux/rtnetlink.h leaves
# 192 to 255 to programs other than the kernel.
PROTOCOL = 200
