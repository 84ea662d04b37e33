"""Words to the service manager: sd_notify(3), without its library."""

from __future__ import annotations

import os
import socket


def tell(*words: str) -> None:
    """Send `READY=1` and the like; nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as channel:
        try:
            channel.sendto("\n".join(words).encode(), address)
        except OSError:
            # A manager that is too busy to listen does not keep us from our work.
            return


def watchdog_period() -> float | None:
    """Give the seconds between two signs of life that are asked for: half of what the manager waits."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if microseconds.isdecimal() and meant else None
