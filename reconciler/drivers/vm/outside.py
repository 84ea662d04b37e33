"""What a machine uses of the host: TAPs, sockets of vhost-user backends, and the NICs that other programs gave it."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from reconciler.model.machine import Other, Tap
from reconciler.netlink.engine import local_engine

_PROBE_TIMEOUT = 1.0
# include/uapi/linux/if_tun.h.
_IFF_TAP, _IFF_MULTI_QUEUE = 0x0002, 0x0100


class OtherNic(NamedTuple):
    """A NIC that another program plugged: its MAC address, and its TAP; "" if QEMU does not name one."""

    hw_addr: str
    tap: str
    ids: Other


def taps(devices: Iterable[str]) -> dict[str, Tap]:
    """Read devices of the host. The result lacks those that do not exist."""
    found = {}
    with local_engine() as host:
        for device in devices:
            link = host.link(device)
            if link is None:
                continue
            flags = 0
            with suppress(OSError, ValueError), open(f"/sys/class/net/{device}/tun_flags", encoding="ascii") as file:
                flags = int(file.read(), 16)
            found[device] = Tap(
                is_tap=bool(flags & _IFF_TAP),
                multi_queue=bool(flags & _IFF_MULTI_QUEUE),
                mtu=link.mtu,
                up=link.up,
                # A TAP that is up has a carrier while a process uses it. A TAP that is down shows none.
                busy=link.carrier,
            )
    return found


def probe(path: str) -> str:
    """Return what is wrong with a vhost-user socket, or "". QEMU would stop the guest until the backend answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(path)
        except OSError as error:
            return error.strerror or str(error)
    return ""
