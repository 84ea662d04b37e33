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
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from reconciler.drivers import namespaces
from reconciler.manifest.files import identity
from reconciler.manifest.whereabouts import OWN
from reconciler.netlink import nsid
from reconciler.netlink.channel import Channel
from reconciler.netlink.interface import Link

# Kinds whose only other end is the link or the peer that the kernel names; of a tunnel, the namespace that its packets
# leave by.
_LINKED = frozenset({"veth", "vlan", "macvlan", "ipvlan", "ipip", "sit", "gre", "ip6tnl", "ip6gre"})
_OWN_USER = "/proc/thread-self/ns/user"
# linux/nsfs.h.
_NS_GET_USERNS = 0xB701


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
    if any(nsid.find(channel, namespace) == link.peer_namespace for namespace in _of_the_host()):
        return ""
    return (
        "a program in the sandbox could have made it, as its other end is neither on the host nor in a namespace that "
        "root has made and that has a name or a process"
    )


def _of_the_host() -> Iterator[int]:
    """Yield open files of namespaces, each once: the host's own, and those that belong to its user namespace."""
    own = identity(_OWN_USER)
    seen: set[tuple[int, int]] = set()
    for path in chain((OWN,), (address.file for address in namespaces.addresses())):
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


def _owner(namespace: int) -> object:
    """Return the identity of the user namespace that a namespace belongs to. OSError if that may not be known."""
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    try:
        return identity(f"/proc/thread-self/fd/{owner}")
    finally:
        os.close(owner)
