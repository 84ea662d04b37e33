"""Sends messages to the service manager by the protocol of sd_notify(3), without its library."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def send(*assignments: str) -> None:
    """Send `READY=1` and the like in one message. Do nothing if no service manager has started this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    # The watch goes on if the manager does not read its messages, or if there is no descriptor for one.
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as channel:
        channel.sendto("\n".join(assignments).encode(), address)


def watchdog_period() -> float | None:
    """Return the seconds between two `WATCHDOG=1`, half of the manager's deadline; None if the manager expects none."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if microseconds.isdecimal() and is_for_us else None
