"""Where a TAP of the host is: open in a machine, or nowhere."""

from __future__ import annotations

import fcntl
import os
import struct

from reconciler.drivers import elsewhere
from tests.conftest import Kernel, ip

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def test_a_process_has_a_tap_open_until_that_is_deleted(kernel: Kernel) -> None:
    name = kernel.tap()
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        # Not attached yet: the kernel shows a line without a name.
        assert elsewhere._taps_of(os.getpid()) == set()
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))
        assert elsewhere._taps_of(os.getpid()) == {name}
        ip("link", "del", name)
        assert elsewhere._taps_of(os.getpid()) == set()
    finally:
        os.close(tap)
