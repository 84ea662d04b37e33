"""The host's end of vsock (vsock(7)), and of hybrid vsock as Firecracker and Cloud Hypervisor have it.

Any process of a host may connect to a vsock port of a machine. The agent therefore answers only what comes from a
privileged port, and this end binds itself to one. Hybrid vsock is a unix socket on the host: its client writes `CONNECT
PORT` and a newline, and reads `OK`, a port of no meaning, and a newline (docs/vsock.md of Firecracker, docs/vsock.md
of Cloud Hypervisor). From then on the socket carries the connection.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time

from reconciler.errors import ChannelError, HostError, ProtocolError, ReconcilerError, SandboxGoneError
from reconciler.guest.agent import PRIVILEGED, VMADDR_CID_LOCAL
from reconciler.model.transport import Vsock
from reconciler.wording import reason

# What the kernel has while machines can be reached, whether its code is a module or built in.
_VHOST = "/sys/class/misc/vhost-vsock"
# The privileged ports that are tried, from the last one on, as rresvport(3) does.
_FIRST = 512
# Bytes of the answer of a unix socket of hybrid vsock.
_ANSWER_SIZE = 32
_ANSWER = re.compile(rb"OK [0-9]{1,20}\n")
_START = "start the agent in the machine (docs/kata3.md)"


def connect(to: Vsock, timeout: float) -> socket.socket:
    """Connect to a vsock port from a privileged port of this host. SandboxGoneError if no machine has the CID.

    HostError if this host has no vsock, or without CAP_NET_BIND_SERVICE. ChannelError if nothing listens there.
    """
    module = "vsock_loopback" if to.cid == VMADDR_CID_LOCAL else "vhost_vsock"
    if to.cid != VMADDR_CID_LOCAL and not os.path.exists(_VHOST):
        # A host that is a virtual machine itself would ask the host above for that CID, and wait.
        raise _no_module(to, module)
    try:
        channel = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise _no_module(to, module) from error
    try:
        channel.settimeout(timeout)
        _bind(channel, to)
        channel.connect((to.cid, to.port))
    except OSError as error:
        channel.close()
        raise _explained(to, timeout, error) from error
    except BaseException:
        channel.close()
        raise
    return channel


def _bind(channel: socket.socket, to: Vsock) -> None:
    for port in range(PRIVILEGED - 1, _FIRST - 1, -1):
        try:
            channel.bind((socket.VMADDR_CID_ANY, port))
        except PermissionError:
            raise HostError(
                f"cannot connect to {to}: the agent answers only a privileged port of this host, "
                "which needs CAP_NET_BIND_SERVICE; run this as root"
            ) from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return
    raise HostError(
        f"cannot connect to {to}: all vsock ports of this host from {_FIRST} to {PRIVILEGED - 1} are in use"
    )


def _explained(to: Vsock, timeout: float, error: OSError) -> ReconcilerError:
    if error.errno == errno.ENODEV:
        if to.cid == VMADDR_CID_LOCAL:
            return _no_module(to, "vsock_loopback")
        return SandboxGoneError(f"no machine of this host has the vsock CID {to.cid}: the sandbox is not running")
    if error.errno in {errno.ECONNRESET, errno.ECONNREFUSED}:
        return ChannelError(f"nothing listens at {to}; {_START}")
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return ChannelError(f"the machine did not accept a connection to {to} within {timeout:.0f} s")
    return HostError(f"cannot connect to {to}: {reason(error)}")


def _no_module(to: Vsock, module: str) -> HostError:
    return HostError(
        f"cannot connect to {to}: this host's kernel lacks the module {module}; load it: modprobe {module}"
    )


def choose_port(channel: socket.socket, address: str, port: int, timeout: float) -> None:
    """Ask the unix socket of hybrid vsock for a port. ChannelError if nothing listens there, or without an answer.

    Nothing more than the answer is read: the agent may have sent something already.
    """
    deadline = time.monotonic() + timeout
    answer = bytearray()
    try:
        channel.sendall(b"CONNECT %d\n" % port)
        while not answer.endswith(b"\n") and len(answer) < _ANSWER_SIZE:
            channel.settimeout(max(0.001, deadline - time.monotonic()))
            part = channel.recv(1)
            if not part:
                raise ChannelError(f"nothing listens at {address}; {_START}")
            answer += part
    except TimeoutError:
        raise ChannelError(f"{address} did not answer CONNECT within {timeout:.0f} s") from None
    except OSError as error:
        raise ChannelError(f"nothing listens at {address} ({reason(error)}); {_START}") from error
    if not _ANSWER.fullmatch(answer):
        raise ProtocolError(f"{address} does not answer CONNECT as hybrid vsock does, but with {bytes(answer)!r}")
