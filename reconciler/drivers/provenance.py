"""What proves that a device in a namespace came from this host, although reconciler did not move it there.

Whoever has rights in a namespace can make devices in it, with any name, index and MAC address. If such a device counted
as one of the host, it would appear there under the name that the manifest says, with its other end in the hands of who
made it. So the kernel has to say something that a tenant cannot make:

- There is hardware behind the device.
- Its other end, or the link below it, is in the host's own namespace, or in another one that belongs to the host's user
  namespace: one with a name or a process. A device with one end elsewhere is made only by somebody with rights there as
  well (net/core/rtnetlink.c: rtnl_link_get_net_capable), and only root makes such a namespace. The kernel translates
  the number of the other namespace, which it alone assigns.

A tenant can make a macvlan beside one that it has been given, on the same link of the host: that one has no other end.
A TAP or a macvtap has an end that may be open in a program, whoever made it. So nothing is proven of these, nor of a
device whose other end is in the same namespace.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from reconciler.manifest.files import identity
from reconciler.manifest.whereabouts import OWN
from reconciler.netlink import message
from reconciler.netlink.channel import Channel
from reconciler.netlink.interface import Link

# Kinds whose only other end is the link or the peer that the kernel names.
_LINKED = frozenset({"veth", "vlan", "macvlan", "ipvlan"})
_NAMES = "/run/netns"
_OWN_USER = "/proc/thread-self/ns/user"
# linux/nsfs.h.
_NS_GET_USERNS = 0xB701
# linux/rtnetlink.h and linux/net_namespace.h: RTM_GETNSID, struct rtgenmsg, NETNSA_NSID and NETNSA_FD.
_GET, _NEW, _HEADER = 90, 88, struct.pack("=Bxxx", 0)
_NSID, _FD = 1, 3
_S32 = struct.Struct("=i")


def doubt(link: Link, channel: Channel) -> str:
    """Return why nothing proves that a link is a device of the host; "" if something does.

    `channel`: one to the kernel's routing family in the namespace of the link.
    """
    if link.physical:
        return ""
    if link.kind not in _LINKED:
        return f"a program in the sandbox could have made it, as it is of kind {link.kind}"
    if link.peer_namespace is None:
        return "a program in the sandbox could have made it, as its other end is there as well"
    if any(_number(channel, namespace) == link.peer_namespace for namespace in _of_the_host()):
        return ""
    return (
        "a program in the sandbox could have made it, as its other end is neither on the host nor in a namespace that "
        "root has made and that has a name or a process"
    )


def _of_the_host() -> Iterator[int]:
    """Yield open files of namespaces, each once: the host's own, and those that belong to its user namespace."""
    own = identity(_OWN_USER)
    seen: set[tuple[int, int]] = set()
    named = (f"{_NAMES}/{name}" for name in _listed(_NAMES))
    of_processes = (f"/proc/{name}/ns/net" for name in _listed("/proc") if name.isdecimal())
    for path in chain((OWN,), named, of_processes):
        # A process may end meanwhile, and a name may be of no namespace.
        with suppress(OSError):
            found = os.stat(path)
            if found.st_dev != os.stat(OWN).st_dev or (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if path == OWN or _owner(file) == own:
                    yield file
            finally:
                os.close(file)


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _owner(namespace: int) -> object:
    """Return the identity of the user namespace that a namespace belongs to. OSError if that may not be known."""
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    try:
        return identity(f"/proc/thread-self/fd/{owner}")
    finally:
        os.close(owner)


def _number(channel: Channel, namespace: int) -> int | None:
    """Return the number that the namespace of a channel has for another one; None if it has none."""
    body = _HEADER + message.attribute(_FD, _S32.pack(namespace))
    for answer in channel.exchange(message.pack(_GET, message.REQUEST | message.ACK, 1, body), 1):
        if answer.type == _NEW:
            found = dict(message.attributes(answer.payload, len(_HEADER)))
            (number,) = _S32.unpack(found.get(_NSID, _S32.pack(-1)))
            return int(number) if number >= 0 else None
    return None
