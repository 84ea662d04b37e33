"""What a machine uses of the host: TAPs, sockets of vhost-user backends, and the NICs that other programs gave it."""

from __future__ import annotations

import glob
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress

from reconciler.errors import HostError
from reconciler.model.machine import Macvtap, Other, Tap
from reconciler.netlink.engine import local_engine
from reconciler.netlink.interface import Link
from reconciler.values import NamedTuple

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
            if link.kind == "macvtap":
                found[device] = _macvtap(link)
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


def _macvtap(link: Link) -> Tap:
    # It has a carrier as soon as the device below it has one.
    busy = _is_open(_node(link.index))
    macvtap = Macvtap(link.index, link.hw_addr)
    return Tap(is_tap=True, multi_queue=False, mtu=link.mtu, up=link.up, busy=busy, macvtap=macvtap)


def _node(index: int) -> str:
    return f"/dev/tap{index}"


def _is_open(node: str) -> bool:
    """Return whether any process has a file open. One that was deleted, and made again, is another one."""
    for name in glob.iglob("/proc/[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(name) == node:
                return True
    return False


def open_macvtap(device: str) -> int:
    """Open a macvtap of the host, and return the descriptor. HostError if its file is not there, or another one."""
    try:
        with open(f"/sys/class/net/{device}/ifindex", encoding="ascii") as file:
            node = _node(int(file.read()))
        with open(f"/sys/class/net/{device}/macvtap/{os.path.basename(node)}/dev", encoding="ascii") as file:
            major, minor = map(int, file.read().split(":"))
        opened = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:
        raise HostError(f"{device}: the macvtap cannot be opened: {error}") from error
    found = os.fstat(opened)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(major, minor):
        os.close(opened)
        raise HostError(f"{device}: {node} is not the file of this macvtap; udev or devtmpfs has to make it")
    return opened


def probe(path: str) -> str:
    """Return what is wrong with a vhost-user socket, or "". QEMU would stop the guest until the backend answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(path)
        except OSError as error:
            return error.strerror or str(error)
    return ""
