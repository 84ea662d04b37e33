"""The agent: it relays netlink between the host and this machine's kernel, over a virtio-serial port or over vsock.

    agent.py [NAME]
    agent.py --vsock PORT
    agent.py --hvsock PORT

NAME is that of the virtio-serial port, `reconciler.agent` by default. PORT is the number of a vsock port, which the
agent listens at; with --hvsock, of hybrid vsock, whose other end is a unix socket on the host (Firecracker, Cloud
Hypervisor). The agent runs as root inside the virtual machine, or in a container there with CAP_NET_ADMIN. It is one
file and needs only the standard library of Python 3.9 or later, so any image can have it. The host imports the protocol
from here. Neither end trusts the other.

Frames
    Both directions carry frames: HEADER, with the size of the payload, a request id and a kind; then the payload, at
    most MAX_FRAME bytes. The integers of the protocol are big-endian. Netlink messages are as the kernel has them.

Connection
    The agent serves one host at a time. A host begins with a greeting: MAGIC, which never changes, and NONCE_SIZE
    random bytes. The agent searches for MAGIC in everything it receives, even within a frame. When it finds MAGIC, it
    discards the unfinished frame and whatever the previous host left: a subscription, a guard, answers that nobody
    read. Then it echoes the greeting and sends HELLO. The host discards everything before the echo. So neither half a
    frame of a host that was killed nor an answer meant for it does harm. After an error the host greets again, on the
    same connection.

Who may connect
    QEMU opens a virtio-serial port to whoever can open its socket on the host. At a vsock port, any process of the host
    and of this machine can connect: so the agent serves only the host (VMADDR_CID_HOST), and only from a port below
    1024, which takes the rights of root there (CAP_NET_BIND_SERVICE). Behind hybrid vsock, the unix socket says who may
    connect, and the port has no meaning. The agent closes all other connections at once. A machine without a host,
    which has no other vsock than its loopback, is its own host. A host that connects takes the place of the one before.

Requests
    The host chooses the id of a request. The agent serves one request after the other. The answer has the same id: any
    number of MORE and then one DONE, whose payloads together are the answer; or FAILED, an errno and a text.

    NETLINK     messages for the kernel, sent back to back; answered by all messages up to the answer to the last one
    DUMPS       dump requests, each sent after the answer to the one before, because a socket has one dump at a time
    MODPROBE    loads one of MODULES
    MODULES_GET reads which of MODULES the machine has, loaded or not
    SYSCTL_GET  reads sysctls: of SYSCTLS, or of CONF_SYSCTLS of any link
    SYSCTL_SET  changes one of these
    SUBSCRIBE   from now on the kernel's notifications of these groups, all in ALLOWED_GROUPS, come as NOTIFY
    LISTING     reads the kernel's listing of its IPVS table, /proc/net/ip_vs
    UNMANAGED_GET  reads which NICs the machine's network managers leave alone
    UNMANAGED_SET  tells them which to leave alone, in files below /run
    PROBE       tries to reach addresses: connects over TCP, sends an ICMP echo, or asks for the status of an HTTP path
    SERVERS     reads the servers of all IPv4 services of the IPVS table, as the older interface of linux/ip_vs.h tells
    FILE        reads one of FILES below /proc/net
    GUARD       from now on IPVS services that disappear are restored at once, and each restore is reported as GUARDED

    Of netlink, the agent relays the route family, IPVS, the lookup of IPVS's family number, connection tracking,
    tables of nftables named TABLE, and dumps of sockets. It refuses all other messages, modules, sysctls, files and
    groups with EPERM.

Unrequested frames
    NOTIFY and GUARDED have request id 0, as has LOST: notifications were lost, or the guard has ended by itself. The
    host must then read everything again and set the guard again. An agent that opens its port sends HELLO: a host that
    has been connected all the time knows by it that the agent before is gone, with its subscription and its guard.

Traps
    A read of the port returns b"" at once for as long as no host is connected. The agent does not notice a host that is
    replaced quickly, and the end of its last frame can be missing: therefore a greeting counts wherever it stands. Or
    the agent sees the hang-up late, when it has read the next host's greeting already: therefore it treats the host as
    gone only after GRACE seconds of silence. A port that was unplugged answers ENODEV from then on, even when a port of
    the same name is plugged: that one has to be opened.

This file in order: the constants; `Decoder`, `Port` and `VsockPort`, which carry frames; `PortServer` and `serve`,
which serve the hosts at any port (runner.py uses them too); the kernel's modules, network managers, sysctls and netlink
sockets; `MessageFilter` and `NetlinkRelay`; `Probe` and `attempt`; `GuardedService`, `GuardLoop` and `GuardProcess`;
and `Agent`, which answers requests by means of these.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple, NoReturn

# The protocol.

# The host refuses an agent of another version.
VERSION = 5
# The name of the agent's virtio-serial port.
PORT = "reconciler.agent"
# The first bytes of a greeting. They contain no zero byte, and every header begins with one: so MAGIC never begins in
# one frame and ends in the next.
MAGIC = b"reconcil\xba\xd1\x4c\xe9\xca\x38\x7a\x57\x1a\xe0\x72\x20\x30\xbc\x1b\xb9\xc1\x95\x0e\x5d\x25\x7d\xae\xcb"
# Bytes that follow MAGIC in a greeting. The host chooses them at random, so that it recognizes the echo.
NONCE_SIZE = 16
# Before each payload: its size in bytes, the id of the request (0: unrequested), and the kind of the frame.
HEADER = struct.Struct("!IIH")
# Bytes of a payload.
MAX_FRAME = 1 << 20

# Kinds of frames that the host sends.
NETLINK = 1  # NETLINK_HEAD, then messages
MODPROBE = 2  # the name of a module
SYSCTL_GET = 3  # names of sysctls, a line each; answered by their values, a line each, empty for one that is missing
SYSCTL_SET = 4  # NAME=VALUE
SUBSCRIBE = 5  # SUBSCRIBE_BODY; replaces the previous subscription
DUMPS = 6  # NETLINK_HEAD, then dump requests
LISTING = 7  # nothing
GUARD = 8  # GUARD_HEAD, then the services; replaces the previous guard
# Answered by three lines, see `read_unmanaged`.
UNMANAGED_GET = 9  # nothing
UNMANAGED_SET = 10  # MAC addresses, with spaces between them; replaces those of before, and none removes all files
SERVERS = 11  # nothing; answered by SERVERS_HEAD and what follows there
FILE = 12  # a name of FILES
PROBE = 13  # PROBE_HEAD, then probes, a line each (see Probe.parse); answered by a line each (see `attempt`)

MODULES_GET = 14  # names of MODULES, a line each; answered by a line each (see `find_module`)

# Kinds of frames that the agent sends.
HELLO = 32  # HELLO_HEAD, then the kernel's release; follows the echo of a greeting. Without one: the agent has started
MORE = 33  # a part of an answer; a netlink message is always whole
DONE = 34  # the last part of an answer
FAILED = 35  # FAILED_HEAD, then a text
NOTIFY = 36  # netlink messages
LOST = 37  # nothing
GUARDED = 38  # GUARDED_BODY

# Kinds that only `Decoder` makes. A kind on the wire has 16 bits, so none is as large.
GREETING = 0x10000  # the other end begins anew; the payload is what follows the magic bytes
OVERSIZED = 0x10001  # a header announces more than MAX_FRAME bytes; nothing counts until the next greeting

# The version of the protocol.
HELLO_HEAD = struct.Struct("!H")
# The netlink protocol, and the sequence number of the last message (0 for DUMPS, whose requests are all answered).
NETLINK_HEAD = struct.Struct("!HI")
# An errno.
FAILED_HEAD = struct.Struct("!H")
# Groups of the route family: a mask of RTMGRP_* bits.
SUBSCRIBE_BODY = struct.Struct("!I")
# Microseconds between two looks at the guarded services. 0: guard nothing.
GUARD_HEAD = struct.Struct("!I")
# Milliseconds that all probes of a request may take together.
PROBE_HEAD = struct.Struct("!I")
# Of each guarded service: its address family, and the sizes in bytes of the two messages that follow. The first asks
# for the service (IPVS_CMD_GET_SERVICE), the second adds it (IPVS_CMD_NEW_SERVICE).
GUARD_SERVICE_HEAD = struct.Struct("!BHH")
# Of a service that disappeared: its address family, an errno (0: restored), and microseconds since it was last seen.
GUARDED_BODY = struct.Struct("!BHI")
# Of the answer to SERVERS, for some services at a time: how many services, and how many servers they have. What follows
# is in the machine's byte order: struct ip_vs_get_dests of each service, which says how many servers are its own; and
# the first SERVER_WORDS words of 32 bits of struct ip_vs_dest_entry of all servers, the first of each, the second of
# each, and so on.
SERVERS_HEAD = struct.Struct("!II")
# Address, port, flags, weight, thresholds. Counts and statistics follow, which are three quarters of an entry.
SERVER_WORDS = 6
# Instead of microseconds: the service was never seen, or so long ago that 32 bits are too few.
NEVER = 0xFFFFFFFF

# What the agent allows.

# Netlink protocols (linux/netlink.h).
ROUTE = 0  # all of it
SOCK_DIAG = 4  # lists of sockets only, no message that closes one
NETFILTER = 12  # connection tracking, and the tables of nftables that are named TABLE
GENERIC = 16  # IPVS only
# Notification groups of the route family (linux/rtnetlink.h). The bit of group n is 1 << (n - 1).
ALLOWED_GROUPS = (
    0x1  # RTNLGRP_LINK
    | 0x4  # RTNLGRP_NEIGH
    | 0x10  # RTNLGRP_IPV4_IFADDR
    | 0x40  # RTNLGRP_IPV4_ROUTE
    | 0x80  # RTNLGRP_IPV4_RULE
    | 0x100  # RTNLGRP_IPV6_IFADDR
    | 0x400  # RTNLGRP_IPV6_ROUTE
    | 0x40000  # RTNLGRP_IPV6_RULE
    | 0x800000  # RTNLGRP_IPV4_NETCONF
    | 0x1000000  # RTNLGRP_IPV6_NETCONF
)
# Kernel modules: IPVS with its schedulers and helpers, and connection tracking with its netlink interface.
# fmt: off
MODULES = frozenset({
    "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_fo", "ip_vs_ovf", "ip_vs_lblc", "ip_vs_lblcr",
    "ip_vs_dh", "ip_vs_sh", "ip_vs_mh", "ip_vs_sed", "ip_vs_nq", "ip_vs_twos", "ip_vs_ftp", "ip_vs_pe_sip",
    "nf_conntrack", "nf_conntrack_netlink", "nf_tables",
})
# The name of the tables of nftables that may be made and deleted.
TABLE = b"reconciler\0"
# Files of /proc/net: the connections of IPVS, and counts of packets.
FILES = frozenset({"ip_vs_conn", "snmp", "snmp6"})
# Sysctls below net.ipv4.vs (Documentation/networking/ipvs-sysctl.rst of the kernel).
IPVS_SYSCTLS = frozenset({
    "am_droprate", "amemthresh", "backup_only", "cache_bypass", "conn_reuse_mode", "conntrack", "drop_entry",
    "drop_packet", "est_cpulist", "est_nice", "expire_nodest_conn", "expire_quiescent_template", "ignore_tunneled",
    "nat_icmp_send", "pmtu_disc", "run_estimation", "schedule_icmp", "secure_tcp", "sloppy_sctp", "sloppy_tcp",
    "snat_reroute", "sync_persist_mode", "sync_ports", "sync_qlen_max", "sync_refresh_period", "sync_retries",
    "sync_sock_size", "sync_threshold", "sync_version",
})
# Sysctls of the network that no link has (Documentation/networking/ip-sysctl.rst).
NETWORK_SYSCTLS = frozenset({
    "net.ipv4.fib_multipath_hash_policy", "net.ipv4.fib_multipath_use_neigh", "net.ipv4.fwmark_reflect",
    "net.ipv4.icmp_echo_ignore_all", "net.ipv4.icmp_echo_ignore_broadcasts",
    "net.ipv4.icmp_ignore_bogus_error_responses", "net.ipv4.ip_default_ttl", "net.ipv4.ip_forward",
    "net.ipv4.ip_forward_use_pmtu", "net.ipv4.ip_no_pmtu_disc", "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.tcp_fwmark_accept", "net.ipv4.tcp_l3mdev_accept", "net.ipv4.tcp_mtu_probing", "net.ipv4.tcp_syncookies",
    "net.ipv4.udp_l3mdev_accept", "net.ipv6.auto_flowlabels", "net.ipv6.bindv6only",
    "net.ipv6.fib_multipath_hash_policy", "net.ipv6.fwmark_reflect", "net.ipv6.icmp.echo_ignore_all",
    "net.ipv6.ip_nonlocal_bind",
})
# Sysctls of a link: below net.ipv4.conf.LINK and net.ipv6.conf.LINK.
CONF_SYSCTLS = {
    "ipv4": frozenset({
        "accept_local", "accept_redirects", "accept_source_route", "arp_accept", "arp_announce", "arp_filter",
        "arp_ignore", "arp_notify", "bc_forwarding", "disable_policy", "disable_xfrm", "drop_gratuitous_arp",
        "drop_unicast_in_l2_multicast", "forwarding", "ignore_routes_with_linkdown", "log_martians",
        "promote_secondaries", "proxy_arp", "proxy_arp_pvlan", "route_localnet", "rp_filter", "secure_redirects",
        "send_redirects", "shared_media", "src_valid_mark",
    }),
    "ipv6": frozenset({
        "accept_dad", "accept_ra", "accept_ra_defrtr", "accept_ra_from_local", "accept_ra_mtu", "accept_ra_pinfo",
        "accept_redirects", "accept_source_route", "addr_gen_mode", "autoconf", "dad_transmits", "disable_ipv6",
        "disable_policy", "drop_unicast_in_l2_multicast", "drop_unsolicited_na", "enhanced_dad", "forwarding",
        "hop_limit", "ignore_routes_with_linkdown", "max_addresses", "ndisc_notify", "proxy_ndp",
        "router_solicitations", "use_tempaddr",
    }),
}
# fmt: on
# All sysctls without a link that may be read and changed.
SYSCTLS = NETWORK_SYSCTLS.union(f"net.ipv4.vs.{name}" for name in IPVS_SYSCTLS)
# Characters that the value of a sysctl may have.
MAX_SYSCTL_VALUE = 64
# Services that a guard may have: one of each address family.
GUARD_MAX_SERVICES = 2
# Probes of one request, milliseconds that they may take, and characters of the path of one.
MAX_PROBES = 32
MAX_PROBE_TIME = 2000
MAX_PROBE_PATH = 500
# Tries in a row that one may ask for.
MAX_TRIES = 20
# Microseconds that must be between two looks of a guard.
GUARD_MIN_PERIOD = 500
# Ports below this one belong to root, as in af_vsock.c (LAST_RESERVED_PORT).
PRIVILEGED = 1024
# Restores of one service within a second, at most. Another program may delete it again and again.
GUARD_MAX_RESTORES = 10
# NICs that network managers can be told of.
MAX_UNMANAGED = 1024

# Times.

# Seconds that the kernel or modprobe may take for one request. The host waits longer than that.
KERNEL_TIMEOUT = 8.0
# Seconds that the host may take to read one frame.
WRITE_TIMEOUT = 10.0
# Seconds between two checks whether the machine has a port.
POLL_INTERVAL = 0.1
# Seconds of silence at a port that looks disconnected, after which the host counts as gone.
GRACE = 0.5
# Seconds without an event, after which a server does what is due: the runner reports that a silent command still runs.
TICK = 5.0
# Seconds between two reports of connections that were refused.
REPORT_INTERVAL = 60.0

# Seconds until a probe that failed is tried again, and between two echo requests without an answer.
RETRY_INTERVAL = 0.1
PING_INTERVAL = 0.2

# Sizes.

# Services whose servers are read into one buffer.
SERVICES_AT_ONCE = 512

# Bytes of one write to the port, and the fewest that a part of an answer has. virtio_console transfers 32 KB at a time.
CHUNK = 32 << 10
# Bytes of one read from the port or from the kernel.
READ_SIZE = 64 << 10
# Bytes of one read of a small dump. The kernel allocates a buffer as large as the reader's, and this is its smallest
# one (NLMSG_GOODSIZE): thousands of small dumps take a third of the time (see netlink/channel.py).
SMALL_READ_SIZE = min(os.sysconf("SC_PAGE_SIZE"), 8192) - 320
# Bytes that the kernel queues for a socket: notifications while the host does not read, or errors of a large batch.
RECEIVE_BUFFER = 8 << 20
# Bytes of the text of a failure.
MAX_TEXT = 1024

# Bytes that are read of an answer over HTTP, whose first line has the status.
STATUS_SIZE = 4096

# Numbers of the kernel, by their names there.

# bits/socket.h and asm-generic/socket.h.
_SOL_NETLINK = 270
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
# linux/vm_sockets.h: a machine in the eyes of itself, by its loopback; and how it is asked for its own CID.
VMADDR_CID_LOCAL = 1
_GET_LOCAL_CID = 0x7B9
_CID = struct.Struct("=I")
# linux/netlink.h: socket options.
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
# linux/netlink.h: message types and flags.
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 0x1
_NLM_F_ACK = 0x4
# linux/genetlink.h: how the controller is asked for the number of a family.
_GENL_ID_CTRL = 16
_CTRL_CMD_GETFAMILY = 3
_CTRL_ATTR_FAMILY_ID = 1
_CTRL_ATTR_FAMILY_NAME = 2
# linux/netfilter/nfnetlink.h: the subsystem is the high byte of a message type.
_NFNL_SUBSYS_CTNETLINK = 1
_NFNL_SUBSYS_NFTABLES = 10
# What begins and ends a transaction.
_NFNL_BATCH = frozenset({0x10, 0x11})
# linux/netfilter/nf_tables.h: NFT_MSG_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWSETELEM. The
# first attribute of each is the name of the table.
_NFT_MESSAGES = frozenset({0, 1, 2, 3, 6, 9, 12})
_NFT_NAME = 1
# linux/sock_diag.h: the request for sockets of a family. Another one, SOCK_DESTROY, closes them.
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_DUMP = 0x300
# linux/ip_vs.h.
_IPVS_CMD_NEW_SERVICE = 1
_IPVS_CMD_GET_SERVICE = 4
# linux/ip_vs.h: options of a raw socket, from IP_VS_BASE_CTL on.
_IP_VS_SO_GET_INFO = 64 + 1024 + 64 + 1
_IP_VS_SO_GET_SERVICES = _IP_VS_SO_GET_INFO + 1
_IP_VS_SO_GET_DESTS = _IP_VS_SO_GET_INFO + 3

# The kernel's structures, in its byte order.

# struct timeval: seconds, microseconds.
_TIMEVAL = struct.Struct("ll")
# struct nlmsghdr: size, type, flags, sequence number, port.
_NLMSGHDR = struct.Struct("=IHHII")
# The type alone, at _TYPE_AT.
_TYPE = struct.Struct("=H")
_TYPE_AT = 4
# Type and errno of a message, if it is an error: a negative number, or 0.
_ERROR_MESSAGE = struct.Struct("=4xH10xi")
# Bytes of struct genlmsghdr, which begins with the command.
_GENLMSGHDR_SIZE = 4
# A CTRL_ATTR_FAMILY_NAME attribute that says "IPVS".
_IPVS_NAME = struct.pack("=HH5s3x", 9, _CTRL_ATTR_FAMILY_NAME, b"IPVS")

# The kernel's list of virtio-serial ports, and what opening one fails with while it comes or goes, or while another
# process has it open.
_PORTS = "/sys/class/virtio-ports"
_PASSING = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EBUSY})

# What to do if the agent cannot listen at a vsock port.
_WHY_NO_VSOCK = {
    errno.EAFNOSUPPORT: "; the machine's kernel needs the module vmw_vsock_virtio_transport",
    errno.EPERM: "; a seccomp profile of this container forbids AF_VSOCK",
    errno.EACCES: "; a port below 1024 needs CAP_NET_BIND_SERVICE",
    errno.EADDRINUSE: "; another process listens there",
}

# struct ip_vs_getinfo: version, size of the table of connections, number of services.
_GETINFO = struct.Struct("@III")
# struct ip_vs_service_entry: protocol, address, port, mark, scheduler, flags, timeout, netmask, number of servers, and
# statistics. Then struct ip_vs_dest_entry: address, port, flags, weight, thresholds, counts of connections, statistics.
_STATISTICS = "0QIIIQQIIIII0Q"
_SERVICE_FIELDS = "@HIHI16xIIII"
_SERVICE_ENTRY = struct.Struct(
    f"{_SERVICE_FIELDS}{struct.calcsize(_SERVICE_FIELDS + _STATISTICS) - struct.calcsize(_SERVICE_FIELDS)}x"
)
_DEST_ENTRY_SIZE = struct.calcsize(f"@IHIiIIIII{_STATISTICS}")
# struct ip_vs_get_services before its entries, and struct ip_vs_get_dests: protocol, address, port, mark, number.
_GET_SERVICES = struct.Struct("@I0Q")
_GET_DESTS = struct.Struct("@HIHII0Q")

# Types of the message that ends an answer.
_END_TYPES = frozenset({_NLMSG_ERROR, _NLMSG_DONE})
# What the byte at _TYPE_AT is in such a message. On a big-endian machine that byte is 0 in most other messages as well.
_END_TYPE_BYTES = _END_TYPES | ({0} if sys.byteorder == "big" else set())


class HostGoneError(Exception):
    """The host has disconnected, or it does not read."""


class PortGoneError(HostGoneError):
    """The port itself is gone for good: it was unplugged."""


class Frame(NamedTuple):
    """A frame that was received. `request` is 0 if it is not an answer."""

    request: int
    kind: int
    payload: bytes


class Decoder:
    """Turns received bytes into frames. It keeps at most one frame and the bytes that it was fed last.

    Nothing counts before the `magic` bytes. Wherever they come, even within a frame, the unfinished frame is dropped,
    and a frame of kind GREETING reports the `tail` bytes that follow. The first byte of `magic` must not occur in
    these: so half a greeting does not swallow the next one.

    A header that announces more than MAX_FRAME bytes is reported as OVERSIZED. Nothing counts after it until the next
    `magic`.
    """

    def __init__(self, magic: bytes, tail: int) -> None:
        self._magic = magic
        self._greeting_size = len(magic) + tail
        # Bytes that are no frame yet: half a frame; or, without a greeting, what may be the begin of one.
        self._buffer = bytearray()
        self._is_greeted = False

    def feed(self, data: bytes) -> list[Frame]:
        """Add received bytes. Return the frames that are complete now, in order."""
        buffer = self._buffer
        frames: list[Frame] = []
        # Earlier bytes than these were searched before.
        search_from = max(0, len(buffer) - len(self._magic) + 1) if self._is_greeted else 0
        buffer += data
        while (at := buffer.find(self._magic, search_from)) >= 0:
            del buffer[: at - self._cut_frames(at, frames)]
            self._is_greeted = False
            search_from = buffer.find(self._magic[:1], len(self._magic), self._greeting_size)
            if search_from >= 0:
                # This greeting was cut short, and another one may begin here.
                continue
            if len(buffer) < self._greeting_size:
                return frames
            frames.append(Frame(0, GREETING, bytes(buffer[len(self._magic) : self._greeting_size])))
            del buffer[: self._greeting_size]
            self._is_greeted = True
            search_from = 0
        self._cut_frames(len(buffer), frames)
        if not self._is_greeted:
            del buffer[: 1 - len(self._magic)]
        return frames

    def _cut_frames(self, end: int, frames: list[Frame]) -> int:
        """Move the whole frames before position `end` from the buffer to `frames`. Return their size in bytes."""
        position = 0
        while self._is_greeted and position + HEADER.size <= end:
            size, request, kind = HEADER.unpack_from(self._buffer, position)
            after = position + HEADER.size + size
            if size > MAX_FRAME:
                self._is_greeted = False
                frames.append(Frame(request, OVERSIZED, b""))
            elif after > end:
                break
            else:
                frames.append(Frame(request, kind, bytes(self._buffer[position + HEADER.size : after])))
                position = after
        del self._buffer[:position]
        return position


class Port:
    """The guest's end of a virtio-serial port, or of a socket. Each method raises HostGoneError if the host is gone.

    `open_next` waits for the port, and opens it: the first time, and whenever it is gone for good. `visitors` is a
    descriptor that is readable when somebody connects, if that does not happen in the port itself.
    """

    visitors: int | None = None
    # A host may come back to a port that looks disconnected. A connection that has ended is gone for good.
    may_return = True

    def __init__(self, open_next: Callable[[], int]) -> None:
        self._open_next = open_next
        # Bytes of frames that the host has not read.
        self.pending = bytearray()
        self._open()

    def _open(self) -> None:
        self.descriptor = self._open_next()
        os.set_blocking(self.descriptor, False)
        # When the port began to look disconnected, by time.monotonic().
        self._silent_since: float | None = None
        # A port without a host is always ready to be read, and only edges tell that something changes there.
        self._edges = select.epoll()
        self._edges.register(self.descriptor, select.EPOLLIN | select.EPOLLET)

    def reopen(self) -> None:
        """Close the port, which is gone for good, and wait for the next one."""
        self._edges.close()
        os.close(self.descriptor)
        self._open()

    def receive(self) -> bytes:
        """Return what has arrived, READ_SIZE bytes or a little more at most; b"" if that is nothing."""
        data = bytearray()
        is_disconnected = False
        try:
            # The port returns a page at a time.
            while len(data) < READ_SIZE and not is_disconnected:
                part = os.read(self.descriptor, READ_SIZE)
                data += part
                is_disconnected = not part
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._gone(error) from error
        if data or not is_disconnected:
            self._silent_since = None
        else:
            self._await_host()
        return bytes(data)

    def _gone(self, error: OSError) -> HostGoneError:
        """Return what an error means. ENODEV: the port was unplugged, and never comes back (drivers/char)."""
        return PortGoneError() if error.errno == errno.ENODEV or not self.may_return else HostGoneError()

    def admit(self) -> None:
        """Handle an event of `visitors`."""

    def await_edge(self, seconds: float) -> None:
        """Wait until a host connects or disconnects or sends something, but no longer than so many seconds."""
        self._edges.poll(seconds)

    def _await_host(self) -> None:
        """Wait for a host, unless the port has looked disconnected for GRACE."""
        if not self.may_return:
            raise PortGoneError
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since > GRACE:
            raise HostGoneError
        self.await_edge(GRACE)

    def push(self, request: int, kind: int, payload: bytes | bytearray | memoryview = b"") -> None:
        """Append a frame to the pending ones, and write without waiting."""
        self.pending += HEADER.pack(len(payload), request, kind)
        self.pending += payload
        self.flush()

    def flush(self) -> None:
        """Write as many pending bytes as possible without waiting."""
        try:
            while self.pending:
                del self.pending[: os.write(self.descriptor, self.pending[:CHUNK])]
        except BlockingIOError:
            return
        except OSError as error:
            raise self._gone(error) from error

    def send(self, request: int, kind: int, payload: bytes | bytearray | memoryview = b"") -> None:
        """Write a frame, and wait up to WRITE_TIMEOUT until the host has room for it."""
        self.push(request, kind, payload)
        deadline = time.monotonic() + WRITE_TIMEOUT
        poller = select.poll()
        poller.register(self.descriptor, select.POLLOUT)
        while self.pending:
            events = poller.poll(max(0, deadline - time.monotonic()) * 1000)
            if not events:
                raise HostGoneError
            if events[0][1] & select.POLLHUP:
                self._await_host()
            self.flush()

    def fail(self, request: int, error: OSError) -> None:
        """Answer a request with FAILED."""
        is_timeout = isinstance(error, (TimeoutError, BlockingIOError))
        code = errno.ETIMEDOUT if is_timeout else error.errno or errno.EIO
        text = (error.strerror or str(error)).encode()[:MAX_TEXT]
        self.send(request, FAILED, FAILED_HEAD.pack(code) + text)


class VsockPort(Port):
    """A connection of the host to a vsock port of this machine, and after it the next one."""

    may_return = False

    def __init__(self, number: int, *, hybrid: bool) -> None:
        """Listen. OSError if that is impossible. `hybrid`: the host's port has no meaning."""
        self._hybrid = hybrid
        self._listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.bind((socket.VMADDR_CID_ANY, number))
        self._listener.listen()
        self._listener.setblocking(False)
        self.visitors = self._listener.fileno()
        # The connection that takes the place of this one.
        self._next: socket.socket | None = None
        # When a refusal was last reported, by time.monotonic().
        self._reported = -REPORT_INTERVAL
        super().__init__(self._await_connection)

    def admit(self) -> None:
        """Look who connects. PortGoneError if it is a host: it takes the place of the one before."""
        with suppress(OSError):
            connection, (cid, port) = self._listener.accept()
            if self._is_host(cid, port):
                self._next = connection
                raise PortGoneError
            connection.close()
            self._report(cid, port)

    def _await_connection(self) -> int:
        while self._next is None:
            select.select([self._listener], [], [])
            with suppress(PortGoneError):
                self.admit()
        connection, self._next = self._next, None
        return connection.detach()

    def _is_host(self, cid: int, port: int) -> bool:
        if cid == VMADDR_CID_LOCAL and not _has_host():
            return port < PRIVILEGED
        return cid == socket.VMADDR_CID_HOST and (self._hybrid or port < PRIVILEGED)

    def _report(self, cid: int, port: int) -> None:
        """Report a refusal on standard error, not more than one in REPORT_INTERVAL: others can connect without end."""
        now = time.monotonic()
        if now - self._reported >= REPORT_INTERVAL:
            self._reported = now
            limits = "" if self._hybrid else f", from ports below {PRIVILEGED} (or any, with --hvsock)"
            text = f"agent.py: refused CID {cid}, port {port}: it serves only CID {socket.VMADDR_CID_HOST}{limits}"
            print(text, file=sys.stderr, flush=True)


def _has_host() -> bool:
    """Return whether this machine is a virtual machine that its host reaches by vsock, or may be one.

    The kernel reports another CID for one whose only vsocks are its own loopback and that of machines in it.
    """
    try:
        with open("/dev/vsock", "rb", buffering=0) as device:
            (cid,) = _CID.unpack(fcntl.ioctl(device, _GET_LOCAL_CID, bytes(_CID.size)))
    except OSError:
        # A container may have no such device.
        return True
    return cid not in {VMADDR_CID_LOCAL, socket.VMADDR_CID_HOST, socket.VMADDR_CID_ANY & 0xFFFFFFFF}


class PortServer:
    """What serves the hosts at a port, one after the other. `serve` calls its methods."""

    def __init__(self, port: Port) -> None:
        self.port = port

    def handle(self, request: int, kind: int, payload: bytes) -> None:
        """Handle a frame of the host. An OSError is reported to the host as FAILED."""
        raise NotImplementedError

    def sources(self) -> list[tuple[int, int]]:
        """Return the descriptors, each with its poll events, to wait for besides the port."""
        return []

    def ready(self, source: int) -> None:
        """Handle an event of one of the sources."""

    def tick(self, *, idle: bool) -> None:
        """Do what is due after the events, or (`idle`) after TICK seconds without any."""

    def reset(self) -> None:
        """Undo and forget everything that belongs to the host, which is gone."""


def serve(server: PortServer) -> NoReturn:
    """Serve one host after the other, forever."""
    is_new = True
    while True:
        gone = _serve_host(server, is_new=is_new)
        server.port.pending.clear()
        server.reset()
        is_new = isinstance(gone, PortGoneError)
        if is_new:
            server.port.reopen()
        else:
            server.port.await_edge(TICK)


def _serve_host(server: PortServer, *, is_new: bool) -> HostGoneError:
    """Serve the hosts at the port until one of them is gone. Return how. `is_new`: the port was just opened."""
    decoder = Decoder(MAGIC, NONCE_SIZE)
    try:
        if is_new:
            server.port.push(0, HELLO, _hello())
        while True:
            _serve_events(server, decoder)
    except HostGoneError as gone:
        return gone


def _serve_events(server: PortServer, decoder: Decoder) -> None:
    """Wait for the next events of the port and of the server's sources, and handle them."""
    port = server.port
    poller = select.poll()
    poller.register(port.descriptor, select.POLLIN | (select.POLLOUT if port.pending else 0))
    for source, events in server.sources():
        poller.register(source, events)
    if port.visitors is not None:
        poller.register(port.visitors, select.POLLIN)
    ready = dict(poller.poll(TICK * 1000))
    idle = not ready
    port_events = ready.pop(port.descriptor, 0)
    has_visitor = bool(ready.pop(port.visitors, 0)) if port.visitors is not None else False
    # The sources come first, because a frame can close one that is ready.
    for source in ready:
        server.ready(source)
    if port_events & select.POLLOUT:
        port.flush()
    if port_events & ~select.POLLOUT:
        for frame in decoder.feed(port.receive()):
            _serve_frame(server, frame)
    server.tick(idle=idle)
    # Last: what the present host has sent counts.
    if has_visitor:
        port.admit()


def _serve_frame(server: PortServer, frame: Frame) -> None:
    port = server.port
    try:
        if frame.kind == GREETING:
            server.reset()
            port.pending += MAGIC + frame.payload
            port.send(0, HELLO, _hello())
        elif frame.kind == OVERSIZED:
            port.fail(frame.request, OSError(errno.EMSGSIZE, f"a frame may have at most {MAX_FRAME} bytes"))
        else:
            server.handle(*frame)
    except OSError as error:
        port.fail(frame.request, error)


def _hello() -> bytes:
    return HELLO_HEAD.pack(VERSION) + os.uname().release.encode()


def unknown_kind(kind: int) -> OSError:
    """Return the error for a frame of a kind that a server does not know."""
    return OSError(errno.EOPNOTSUPP, f"unknown kind of request: {kind}")


def open_port(name: str) -> Port:
    """Open a virtio-serial port by its name. Wait until the machine has it, also after each time it was unplugged."""
    return Port(lambda: _await_port(name))


def _await_port(name: str) -> int:
    """Wait until the machine has a port of this name. Return the descriptor of it."""
    while True:
        for entry in _list(_PORTS):
            # A port comes and goes in steps: its folder, its name, its device. What is not there yet, or not any more,
            # is looked for again; and so is a port that another process, which may be about to end, has open.
            try:
                with open(f"{_PORTS}/{entry}/name", encoding="utf-8") as file:
                    if file.read().strip() != name:
                        continue
                return os.open(f"/dev/{entry}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
        time.sleep(POLL_INTERVAL)


def _list(folder: str) -> list[str]:
    """Return what is in a folder; nothing if there is no such folder (yet)."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def modprobe(name: str) -> None:
    """Load one of MODULES, with the modules that it needs."""
    if name not in MODULES:
        raise PermissionError(errno.EPERM, f"module {name!r} is not one that the agent may load")
    status = run_program("modprobe", name)
    if status:
        raise OSError(
            errno.ENOENT, f"modprobe {name} failed with exit status {status}; add the module to the guest's kernel"
        )


def find_module(name: str) -> str:
    """Return whether the kernel has one of MODULES, or can load it: `yes` or `no`; "" if nobody knows.

    Whoever runs in a container does not see the modules of its kernel, and some kernels have no list of what is built
    in. Source: modules.dep(5), modules.builtin of Documentation/kbuild/kbuild.rst.
    """
    if name not in MODULES:
        raise PermissionError(errno.EPERM, f"module {name!r} is not one that the agent may look for")
    if os.path.isdir(f"/sys/module/{name}"):
        return "yes"
    folder = f"/lib/modules/{os.uname().release}"
    try:
        built_in, loadable = (_listed_modules(f"{folder}/modules.{each}") for each in ("builtin", "dep"))
    except OSError:
        return ""
    path = loadable.get(name, "")
    return "yes" if name in built_in or (path and os.path.exists(f"{folder}/{path}")) else "no"


def _listed_modules(path: str) -> dict[str, str]:
    """Return the modules of a list by name, each with its file, relative to the list."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        files = [line.strip().partition(":")[0] for line in lines]
    return {os.path.basename(file).partition(".")[0].replace("-", "_"): file for file in files}


def run_program(*words: str) -> int:
    """Run a program. Return its exit status. TimeoutError if it does not end in time; it is not waited for then."""
    child = os.posix_spawnp(words[0], words, os.environ)
    handle = os.pidfd_open(child)
    try:
        if not select.select([handle], [], [], KERNEL_TIMEOUT)[0]:
            raise TimeoutError(errno.ETIMEDOUT, f"{' '.join(words)} did not end within {KERNEL_TIMEOUT:.0f} s")
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class NetworkManager(NamedTuple):
    """A program that configures or renames the NICs of a machine, and that can be told to leave some alone.

    `process`: its name in /proc. `programs`: where it is, if it is installed. `file`: what we tell it, as a template
    for `separator` between `prefix`ed MAC addresses. `reload`: what makes it read that.
    """

    process: str
    programs: tuple[str, ...]
    file: str
    template: str
    prefix: str
    separator: str
    reload: tuple[str, ...]

    def text(self, addresses: list[str]) -> str:
        """Return the text of the file for MAC addresses."""
        return self.template.format(self.separator.join(self.prefix + each for each in addresses))


# The permanent address stays what it was when a NIC was plugged. The names sort before all others.
NETWORK_MANAGERS = (
    NetworkManager(
        process="systemd-network",
        programs=("/lib/systemd/systemd-networkd", "/usr/lib/systemd/systemd-networkd"),
        file="/run/systemd/network/00-reconciler.network",
        template="[Match]\nPermanentMACAddress={}\n\n[Link]\nUnmanaged=yes\n",
        prefix="",
        separator=" ",
        reload=("networkctl", "reload"),
    ),
    NetworkManager(
        process="NetworkManager",
        programs=("/usr/sbin/NetworkManager", "/usr/bin/NetworkManager"),
        file="/run/NetworkManager/conf.d/00-reconciler.conf",
        template="[device-reconciler]\nmatch-device={}\nmanaged=0\n",
        prefix="mac:",
        separator=",",
        reload=("nmcli", "general", "reload", "conf"),
    ),
    # It renames NICs by their slots, and may be slower than we are: systemd.link(5), without a policy none is renamed.
    NetworkManager(
        process="systemd-udevd",
        programs=("/lib/systemd/systemd-udevd", "/usr/lib/systemd/systemd-udevd"),
        file="/run/systemd/network/00-reconciler.link",
        template="[Match]\nPermanentMACAddress={}\n\n[Link]\nNamePolicy=\n",
        prefix="",
        separator=" ",
        reload=("udevadm", "control", "--reload"),
    ),
)
# Programs that configure any NIC that appears, and that cannot be told while they run.
RIVALS = ("connmand", "dhcpcd", "netifd", "wickedd")


def processes() -> set[str]:
    """Return the names of the processes that run, as the kernel has them: 15 characters at most."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError), open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as file:
                found.add(file.read().rstrip("\n"))
    return found


class Unmanaged:
    """Tells network managers of the machine which NICs to leave alone, in files below /run."""

    def __init__(self) -> None:
        # Why a manager could not be told the last time, by its process.
        self._problems: dict[str, str] = {}

    def read(self) -> str:
        """Return three lines: managers that can be told; MAC addresses that all of them were told; who cannot be told.

        The first two have spaces between their words. The third has a name, and a reason in parentheses if there is
        one, with commas between them.
        """
        running = processes()
        managers = [each for each in self._managers(running) if each.process not in self._problems]
        told = [self._told(each) for each in managers]
        common = set.intersection(*told) if told else set()
        problems = [f"{name} ({why})" for name, why in self._problems.items()]
        others = [each for each in RIVALS if each in running]
        return "\n".join(
            (" ".join(each.process for each in managers), " ".join(sorted(common)), ",".join(problems + others))
        )

    def write(self, text: str) -> None:
        """Tell all managers to leave NICs alone, by their MAC addresses, and no others. OSError if one is none."""
        addresses = text.split()
        if len(addresses) > MAX_UNMANAGED or not all(map(_is_mac, addresses)):
            raise OSError(errno.EINVAL, f"expected at most {MAX_UNMANAGED} MAC addresses")
        self._problems.clear()
        running = processes()
        for manager in self._managers(running):
            why = self._tell(manager, addresses, is_running=manager.process in running)
            if why:
                # A reason has one line, and no comma.
                self._problems[manager.process] = why.replace("\n", " ").replace(",", ";")[:MAX_TEXT]

    def _managers(self, running: set[str]) -> list[NetworkManager]:
        return [each for each in NETWORK_MANAGERS if each.process in running or any(map(os.path.exists, each.programs))]

    def _told(self, manager: NetworkManager) -> set[str]:
        """Return what a manager was told: nothing, if the file is not as we write it."""
        try:
            with open(manager.file, encoding="ascii") as file:
                text = file.read(MAX_FRAME)
        except (OSError, ValueError):
            return set()
        found = [each.strip("=,").replace("mac:", "") for each in text.replace("=", "= ").replace(",", " ").split()]
        addresses = [each for each in found if _is_mac(each)]
        return set(addresses) if text == manager.text(addresses) else set()

    def _tell(self, manager: NetworkManager, addresses: list[str], *, is_running: bool) -> str:
        """Tell a manager. Return why that failed, "" if it did not."""
        try:
            self._write(manager, addresses)
            failed = is_running and run_program(*manager.reload)
        except OSError as error:
            return error.strerror or str(error)
        return f"{' '.join(manager.reload)} failed with exit status {failed}" if failed else ""

    def _write(self, manager: NetworkManager, addresses: list[str]) -> None:
        if not addresses:
            with suppress(FileNotFoundError):
                os.unlink(manager.file)
            return
        os.makedirs(os.path.dirname(manager.file), exist_ok=True)
        new = f"{manager.file}.new"
        with open(new, "w", encoding="ascii") as file:
            # The managers run as other users.
            os.fchmod(file.fileno(), 0o644)
            file.write(manager.text(addresses))
        os.replace(new, manager.file)


def _is_mac(text: str) -> bool:
    """Return whether a text is a MAC address as we write it."""
    parts = text.split(":")
    return len(parts) == 6 and all(len(each) == 2 and set(each) <= set("0123456789abcdef") for each in parts)


def read_sysctl(name: str) -> bytes:
    """Return the value of a sysctl, empty if the kernel does not have it. PermissionError if it is not allowed."""
    try:
        with open(_sysctl_file(name), "rb") as file:
            return b" ".join(file.read(4096).split())
    except FileNotFoundError:
        return b""


def write_sysctl(name: str, value: str) -> None:
    """Change a sysctl. FileNotFoundError if the kernel does not have it, PermissionError if it is not allowed."""
    if not 0 < len(value) <= MAX_SYSCTL_VALUE or not set(value) <= set("0123456789 ,-"):
        limits = f"1 to {MAX_SYSCTL_VALUE} digits, spaces, commas and minus signs"
        raise OSError(errno.EINVAL, f"the value for sysctl {name!r} must have {limits}")
    with open(_sysctl_file(name), "w", encoding="ascii") as file:
        file.write(value)


def _sysctl_file(name: str) -> str:
    """Return the file of a sysctl. As in sysctl(8), slashes part a name in which a link's name has dots."""
    parts = name.split("/" if "/" in name else ".")
    if name not in SYSCTLS and not _is_of_link(parts):
        raise PermissionError(errno.EPERM, f"sysctl {name!r} is not one that the agent may read or change")
    return "/proc/sys/" + "/".join(parts)


def _is_of_link(parts: list[str]) -> bool:
    """Return whether these are the parts of the name of an allowed sysctl of a link."""
    if len(parts) != 5 or parts[0] != "net" or parts[2] != "conf" or parts[3] in {"", ".", ".."} or "\0" in parts[3]:
        return False
    return parts[4] in CONF_SYSCTLS.get(parts[1], ())


def open_netlink(protocol: int) -> socket.socket:
    """Open a netlink socket with the same options as netlink/channel.py. Its send buffer has room for a whole frame."""
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            channel.setsockopt(_SOL_NETLINK, option, 1)
        channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        channel.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * MAX_FRAME)
        # With a timeout of Python's own, each read would be preceded by a poll.
        timeout = _TIMEVAL.pack(int(KERNEL_TIMEOUT), int(KERNEL_TIMEOUT % 1 * 1e6))
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        channel.bind((0, 0))
    except BaseException:
        channel.close()
        raise
    return channel


def find_ipvs() -> int:
    """Return the number of the generic netlink family IPVS. Load its module if needed. OSError if that fails."""
    try:
        return _ask_ipvs()
    except FileNotFoundError:
        modprobe("ip_vs")
        return _ask_ipvs()


def _ask_ipvs() -> int:
    body = struct.pack("=BBH", _CTRL_CMD_GETFAMILY, 1, 0) + _IPVS_NAME
    with open_netlink(GENERIC) as controller:
        controller.send(_NLMSGHDR.pack(_NLMSGHDR.size + len(body), _GENL_ID_CTRL, _NLM_F_REQUEST, 1, 0) + body)
        answer = controller.recv(READ_SIZE)
    position = _NLMSGHDR.size + _GENLMSGHDR_SIZE
    while _NLMSGHDR.unpack_from(answer)[1] == _GENL_ID_CTRL and position + 6 <= len(answer):
        # An attribute begins with its size and its type; the number that is looked for has two bytes.
        size, kind, value = struct.unpack_from("=HHH", answer, position)
        if kind == _CTRL_ATTR_FAMILY_ID:
            return int(value)
        position += max(4, _align(size))
    raise FileNotFoundError(errno.ENOENT, "the guest's kernel has no IPVS")


def _align(size: int) -> int:
    """Return a size rounded up to 4 bytes, where the next netlink message or attribute begins."""
    return size + 3 & ~3


def is_end(datagram: bytes, sequence: int) -> bool:
    """Return whether the first or the last message of a datagram ends the answer to the message of that number."""
    position = last = 0
    while position + _NLMSGHDR.size <= len(datagram):
        last = position
        position += max(_NLMSGHDR.size, _align(int.from_bytes(datagram[position : position + 4], sys.byteorder)))
    return any(
        kind in _END_TYPES and answered == sequence
        for _, kind, _, answered, _ in (_NLMSGHDR.unpack_from(datagram, at) for at in {0, last})
    )


def are_uniform(messages: memoryview, kind: int) -> bool:
    """Return whether all messages have the same size and this type. For many messages this is faster than a loop."""
    size = int.from_bytes(messages[:4], sys.byteorder)
    if size < _NLMSGHDR.size or size % 4 or len(messages) % size:
        return False
    count = len(messages) // size
    head = bytes(messages[:4]) + _TYPE.pack(kind)
    return all(bytes(messages[at::size]) == head[at : at + 1] * count for at in range(len(head)))


def _cut_short(what: str) -> OSError:
    return OSError(errno.EINVAL, f"the {what} is cut short")


def _check_deadline(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(errno.ETIMEDOUT, f"the guest's kernel did not answer within {KERNEL_TIMEOUT:.0f} s")


def _names_our_table(body: bytes) -> bool:
    """Return whether a message of nftables names TABLE, and no other one as well: the kernel takes the last name."""
    names, position = [], _GENLMSGHDR_SIZE
    while position + 4 <= len(body):
        size, kind = struct.unpack_from("=HH", body, position)
        if size < 4 or position + size > len(body):
            return False
        if kind & 0x3FFF == _NFT_NAME:
            names.append(body[position + 4 : position + size])
        position += _align(size)
    return names == [TABLE]


class MessageFilter:
    """Decides which netlink messages of the host may reach the kernel. It knows the number of the family IPVS."""

    def __init__(self) -> None:
        # It changes when the module is loaded again. None: not looked up yet.
        self._ipvs: int | None = None

    def check(self, protocol: int, messages: memoryview) -> None:
        """Raise PermissionError for a message that is not allowed, OSError for a malformed one."""
        is_known = self._ipvs is not None and protocol == GENERIC and are_uniform(messages, self._ipvs)
        if protocol != ROUTE and not is_known:
            self.split(protocol, messages)

    def split(self, protocol: int, messages: memoryview) -> list[memoryview]:
        """Return messages of another family than ROUTE one by one. Raise as `check` does."""
        if protocol not in {GENERIC, NETFILTER, SOCK_DIAG}:
            raise PermissionError(errno.EPERM, f"netlink protocol {protocol} is not relayed")
        found = []
        position, end, unpack = 0, len(messages), _NLMSGHDR.unpack_from
        while position < end:
            left = end - position
            size, kind, _, _, _ = unpack(messages, position) if left >= _NLMSGHDR.size else (0, 0, 0, 0, 0)
            if not _NLMSGHDR.size <= size <= left:
                raise OSError(errno.EINVAL, f"netlink message of {size} bytes where {left} are left")
            message = messages[position : position + size]
            # Most often there are thousands of messages, all of IPVS.
            if (protocol != GENERIC or kind != self._ipvs) and not self._is_allowed(protocol, kind, message):
                raise PermissionError(errno.EPERM, f"message type {kind} of netlink protocol {protocol} is not relayed")
            found.append(message)
            position += _align(size)
        return found

    def _is_allowed(self, protocol: int, kind: int, message: memoryview) -> bool:
        if protocol == NETFILTER:
            body = message[_NLMSGHDR.size :]
            if kind in _NFNL_BATCH:
                return bytes(body) == struct.pack("!BBH", 0, 0, _NFNL_SUBSYS_NFTABLES)
            if kind >> 8 == _NFNL_SUBSYS_NFTABLES:
                return kind & 0xFF in _NFT_MESSAGES and _names_our_table(bytes(body))
            return kind >> 8 == _NFNL_SUBSYS_CTNETLINK
        if protocol == SOCK_DIAG:
            flags = _NLMSGHDR.unpack_from(message)[2]
            return kind == _SOCK_DIAG_BY_FAMILY and flags & _NLM_F_DUMP == _NLM_F_DUMP
        if kind != self._ipvs:
            self._ipvs = find_ipvs()
        body = message[_NLMSGHDR.size :]
        asks_for_ipvs = body[:1] == bytes([_CTRL_CMD_GETFAMILY]) and body[_GENLMSGHDR_SIZE:] == _IPVS_NAME
        return kind == self._ipvs or (kind == _GENL_ID_CTRL and asks_for_ipvs)


class NetlinkRelay:
    """Sends netlink messages of the host to the kernel, and the kernel's answers to the host as they come."""

    def __init__(self, port: Port, message_filter: MessageFilter) -> None:
        self._port = port
        self._filter = message_filter
        # By kind of request and netlink protocol. DUMPS has sockets of its own, because a large read makes all later
        # dumps of a socket slower.
        self._sockets: dict[tuple[int, int], socket.socket] = {}

    def reset(self) -> None:
        """Close the sockets, and so discard the answers that the host did not read."""
        for channel in self._sockets.values():
            channel.close()
        self._sockets.clear()

    def exchange(self, request: int, kind: int, payload: bytes) -> bytes:
        """Serve NETLINK or DUMPS: send all of the answer but its last part to the host, and return that part."""
        if len(payload) < NETLINK_HEAD.size + _NLMSGHDR.size:
            raise _cut_short("netlink request")
        protocol, last = NETLINK_HEAD.unpack_from(payload)
        messages = memoryview(payload)[NETLINK_HEAD.size :]
        if kind == NETLINK:
            self._filter.check(protocol, messages)
        elif protocol == ROUTE:
            raise OSError(errno.EOPNOTSUPP, "a request of kind DUMPS is for IPVS and connection tracking only")
        dumps = self._filter.split(protocol, messages) if kind == DUMPS else []
        channel = self._sockets.get((kind, protocol))
        if channel is None:
            channel = self._sockets[kind, protocol] = open_netlink(protocol)
        try:
            if kind == DUMPS:
                return self._exchange_dumps(request, channel, dumps)
            channel.send(messages)
            return self._receive(request, channel, last)
        except BaseException:
            # The rest of this answer must not be taken for the answer to the next request.
            del self._sockets[kind, protocol]
            channel.close()
            raise

    def _receive(self, request: int, channel: socket.socket, last: int) -> bytes:
        """Receive up to the answer to sequence number `last`."""
        deadline = time.monotonic() + KERNEL_TIMEOUT
        part = bytearray()
        while True:
            datagram = channel.recv(READ_SIZE)
            part += datagram
            part += b"\0" * (-len(part) & 3)
            if is_end(datagram, last):
                return bytes(part)
            _check_deadline(deadline)
            if len(part) >= CHUNK:
                self._port.send(request, MORE, part)
                part.clear()

    def _exchange_dumps(self, request: int, channel: socket.socket, dumps: list[memoryview]) -> bytes:
        """Send each dump request after the answer to the one before. This loop is written for speed."""
        deadline = time.monotonic() + KERNEL_TIMEOUT
        buffer = bytearray(CHUNK + SMALL_READ_SIZE)
        view, end = memoryview(buffer), 0
        send, receive, unpack_type = channel.send, channel.recv_into, _TYPE.unpack_from
        for number, dump in enumerate(dumps):
            # Where the machine's clock is slow, reading it takes as long as a dump.
            if number % 64 == 0:
                _check_deadline(deadline)
            send(dump)
            is_answered = False
            while not is_answered:
                start = end
                size = receive(view[start : start + SMALL_READ_SIZE], 0, socket.MSG_TRUNC)
                if size > SMALL_READ_SIZE:
                    raise OSError(errno.EMSGSIZE, f"the kernel sent {size} bytes of a dump at once")
                end = start + size
                # The message that ends a dump is a datagram of its own, or the last 20 bytes of one.
                if buffer[start + _TYPE_AT] in _END_TYPE_BYTES:
                    is_answered = unpack_type(buffer, start + _TYPE_AT)[0] in _END_TYPES
                if not is_answered and buffer[end - 20 + _TYPE_AT] in _END_TYPE_BYTES:
                    is_answered = is_end(bytes(view[start:end]), _NLMSGHDR.unpack_from(dump)[3])
                if end >= CHUNK:
                    self._port.send(request, MORE, view[:end])
                    end = 0
        return bytes(view[:end])


class Probe(NamedTuple):
    """Something to reach, in so many tries in a row. `kind`: tcp, http or ping.

    `status`, `path`: of http, else 0 and "".
    """

    kind: str
    address: str
    port: int
    tries: int
    status: int
    path: str

    @classmethod
    def parse(cls, line: str) -> Probe:
        """Read the line of a probe, which has its fields. OSError if it is none."""
        kind, address, *numbers = line.split(" ", 5)
        path = numbers.pop() if len(numbers) == 4 else ""
        is_good = kind in {"tcp", "http", "ping"} and len(numbers) == 3 and all(map(str.isdecimal, numbers))
        with suppress(OSError, ValueError):
            if is_good and socket.inet_pton(cls.family_of(address), address):
                port, tries, status = (int(each[:6]) for each in numbers)
                is_path = path[:1] == "/" and path.isascii() and path.isprintable() and " " not in path
                is_good = is_path if kind == "http" else not path
                if is_good and port <= 0xFFFF and 0 < tries <= MAX_TRIES and len(path) <= MAX_PROBE_PATH:
                    return cls(kind, address, port, tries, status, path)
        raise OSError(errno.EINVAL, f"not a probe: {line[:100]!r}")

    @property
    def line(self) -> str:
        """Return the line of the probe."""
        return " ".join(map(str, self)).rstrip(" ")

    @staticmethod
    def family_of(address: str) -> socket.AddressFamily:
        """Return the family of an address."""
        return socket.AF_INET6 if ":" in address else socket.AF_INET

    @property
    def family(self) -> socket.AddressFamily:
        """Return the family of the address."""
        return self.family_of(self.address)


Opener = Callable[[int, int, int], socket.socket]


class Try:
    """One try to reach something, without waiting: `step` is called when `wanted` of the socket is possible.

    `failure`: None until the try is over, then why it failed; empty if it succeeded.
    """

    def __init__(self, probe: Probe, opened: Opener) -> None:
        self.probe = probe
        self.failure: str | None = None
        self.wanted = select.POLLOUT
        self.socket: socket.socket | None = None
        self._received = b""
        self._nonce = os.urandom(16)
        with self._noted():
            self.socket = self._open_ping(opened) if probe.kind == "ping" else self._open(opened, socket.SOCK_STREAM, 0)
            code = self.socket.connect_ex((probe.address, probe.port))
            if code not in {0, errno.EINPROGRESS}:
                raise OSError(code, os.strerror(code))

    def _open(self, opened: Opener, kind: int, protocol: int) -> socket.socket:
        channel = opened(self.probe.family, kind | socket.SOCK_CLOEXEC, protocol)
        channel.setblocking(False)
        return channel

    def _open_ping(self, opened: Opener) -> socket.socket:
        protocol = socket.IPPROTO_ICMPV6 if self.probe.family == socket.AF_INET6 else socket.IPPROTO_ICMP
        try:
            return self._open(opened, socket.SOCK_RAW, protocol)
        except PermissionError:
            # Without CAP_NET_RAW, net.ipv4.ping_group_range may allow it.
            return self._open(opened, socket.SOCK_DGRAM, protocol)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Take an error as the end of the try."""
        try:
            yield
        except BlockingIOError:
            pass
        except OSError as error:
            self.failure = error.strerror or str(error)

    def close(self) -> None:
        """Close the socket."""
        if self.socket:
            self.socket.close()

    def step(self) -> None:
        """Do what is possible now."""
        with self._noted():
            if self.socket is None:
                return
            if self.wanted == select.POLLOUT:
                code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                self._begin(self.socket)
            elif self.probe.kind == "ping":
                self._read_echo(self.socket.recv(READ_SIZE))
            else:
                self._read_status(self.socket.recv(STATUS_SIZE))

    def _begin(self, channel: socket.socket) -> None:
        """Go on, once the socket is connected."""
        self.wanted = select.POLLIN
        if self.probe.kind == "tcp":
            self.failure = ""
        elif self.probe.kind == "ping":
            self.ping()
        else:
            host = f"[{self.probe.address}]" if ":" in self.probe.address else self.probe.address
            request = f"GET {self.probe.path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: reconciler\r\n\r\n"
            channel.sendall(request.encode("ascii"))

    def ping(self) -> None:
        """Send an echo request, again if there is no answer yet."""
        with self._noted():
            if self.socket and self.wanted == select.POLLIN and self.probe.kind == "ping" and self.failure is None:
                kind = 128 if self.probe.family == socket.AF_INET6 else 8
                message = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, 1) + self._nonce
                if kind == 8:
                    # The kernel computes the checksum of IPv6 only (RFC 1071).
                    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
                    total = (total & 0xFFFF) + (total >> 16)
                    message = message[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + message[4:]
                self.socket.send(message)

    def _read_echo(self, data: bytes) -> None:
        if self.socket and self.socket.type == socket.SOCK_RAW and self.probe.family == socket.AF_INET and data:
            # The kernel puts the header of the packet in front.
            data = data[(data[0] & 15) * 4 :]
        answer = 129 if self.probe.family == socket.AF_INET6 else 0
        if data[:1] == bytes([answer]) and data[8:] == self._nonce:
            self.failure = ""

    def _read_status(self, data: bytes) -> None:
        self._received += data
        first, ended, _ = self._received.partition(b"\n")
        if data and not ended and len(self._received) < STATUS_SIZE:
            return
        words = first.split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or len(words[1]) != 3 or not words[1].isdigit():
            self.failure = "the answer has no status of HTTP"
        else:
            status = int(words[1])
            self.failure = "" if status == self.probe.status else f"status {status}, not {self.probe.status}"


class Tries:
    """The tries of one probe: the next begins when one has succeeded, or a moment after it has failed.

    `passed`: how many in a row have succeeded. `failure`: why the last one failed that did; empty if none has.
    """

    def __init__(self, probe: Probe, opened: Opener) -> None:
        self._probe, self._opened = probe, opened
        self.passed, self.failure = 0, ""
        self.current: Try | None = None
        self.next_at = 0.0

    @property
    def is_over(self) -> bool:
        """Return whether enough of them have succeeded."""
        return self.passed >= self._probe.tries

    def begin(self, now: float) -> None:
        """Begin the next try if it is due."""
        if self.current is None and now >= self.next_at:
            self.current = Try(self._probe, self._opened)
            self.note(now)

    def note(self, now: float) -> None:
        """Take the result of the current try, if it is over."""
        if self.current and self.current.failure is not None:
            self.passed = 0 if self.current.failure else self.passed + 1
            self.failure = self.current.failure or self.failure
            self.next_at = now + (RETRY_INTERVAL if self.current.failure else 0.0)
            self.end()

    def end(self) -> None:
        """Give the current try up."""
        if self.current:
            self.current.close()
        self.current = None

    def report(self) -> str:
        """Return the line of the answer: how many tries in a row succeeded last, and why one before them failed."""
        silent = "no answer" if not self.passed and not self.failure else ""
        return f"{self.passed} {self.failure or silent}"


def attempt(probes: list[Probe], seconds: float, opened: Opener = socket.socket) -> list[str]:
    """Try to reach all these until each is reached, within so many seconds. Return of each what `Tries.report` does.

    `opened` opens a socket, of a family, a type and a protocol.
    """
    deadline = time.monotonic() + seconds
    tries = [Tries(each, opened) for each in probes]
    again = time.monotonic() + PING_INTERVAL
    try:
        while (waiting := [each for each in tries if not each.is_over]) and (now := time.monotonic()) < deadline:
            if now >= again:
                again = now + PING_INTERVAL
                for each in waiting:
                    if each.current:
                        each.current.ping()
            for each in waiting:
                each.begin(now)
            _await_tries(waiting, min(deadline, again, *(each.next_at for each in waiting if not each.current)))
    finally:
        for each in tries:
            each.end()
    return [each.report() for each in tries]


def _await_tries(waiting: list[Tries], until: float) -> None:
    """Step those whose sockets are ready, as soon as there is one."""
    poll, begun = select.poll(), {}
    for each in waiting:
        if each.current and each.current.socket:
            begun[each.current.socket.fileno()] = each
            poll.register(each.current.socket, each.current.wanted)
    for descriptor, _ in poll.poll(max(0.0, 1000 * (until - time.monotonic())) + 1):
        each = begun[descriptor]
        if each.current:
            each.current.step()
            each.note(time.monotonic())


def probe(payload: bytes) -> bytes:
    """Serve PROBE."""
    if len(payload) < PROBE_HEAD.size:
        raise _cut_short("probe")
    (milliseconds,) = PROBE_HEAD.unpack_from(payload)
    lines = payload[PROBE_HEAD.size :].decode(errors="replace").split("\n")
    if len(lines) > MAX_PROBES or milliseconds > MAX_PROBE_TIME:
        raise OSError(errno.EINVAL, f"at most {MAX_PROBES} probes in {MAX_PROBE_TIME} ms")
    return "\n".join(attempt([Probe.parse(line) for line in lines], milliseconds / 1000)).encode()


class LegacyIpvs:
    """Reads the servers of IPv4 services by the older interface of IPVS: one system call a service, with no dump.

    It tells no tunnels, and no servers of IPv6. OSError with ENOSYS if this Python has no ctypes. Python's own
    `getsockopt` is not enough, since the kernel expects what is asked for in the buffer of the answer.
    """

    def __init__(self) -> None:
        try:
            import ctypes
        except ImportError as error:
            raise OSError(errno.ENOSYS, f"this Python has no ctypes: {error}") from None
        self._ctypes = ctypes
        # A call takes microseconds. To let other threads run meanwhile, of which there are none, takes longer.
        self._getsockopt = ctypes.PyDLL(None, use_errno=True).getsockopt
        self._getsockopt.argtypes = [*[ctypes.c_int] * 3, *[ctypes.c_void_p] * 2]
        self._length = ctypes.c_uint()
        self._length_at = ctypes.addressof(self._length)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def read(self) -> Iterator[bytes]:
        """Yield the answer to SERVERS, some services at a time. A service that has gone is left out."""
        count = self._socket.getsockopt(socket.IPPROTO_IP, _IP_VS_SO_GET_INFO, _GETINFO.size)
        number = _GETINFO.unpack(count)[2]
        listed = bytearray(_GET_SERVICES.size + number * _SERVICE_ENTRY.size)
        _GET_SERVICES.pack_into(listed, 0, number)
        self._ask(_IP_VS_SO_GET_SERVICES, self._address(listed), len(listed))
        services = list(_SERVICE_ENTRY.iter_unpack(memoryview(listed)[_GET_SERVICES.size :]))
        for start in range(0, number, SERVICES_AT_ONCE):
            yield self._read_servers(services[start : start + SERVICES_AT_ONCE])

    def _read_servers(self, services: list[tuple[int, ...]]) -> bytes:
        head_size, entry_size = _GET_DESTS.size, _DEST_ENTRY_SIZE
        # A server that has gone since leaves zeros.
        buffer = bytearray(head_size + sum(each[-1] for each in services) * entry_size)
        begin, end, heads = self._address(buffer), 0, []
        # This loop is written for speed.
        pack, descriptor, length, length_at = _GET_DESTS.pack, self._socket.fileno(), self._length, self._length_at
        ask, protocol_of_ip, option = self._getsockopt, socket.IPPROTO_IP, _IP_VS_SO_GET_DESTS
        for protocol, address, port, mark, _, _, _, servers in services:
            head, size = pack(protocol, address, port, mark, servers), servers * entry_size
            # The entries are to follow each other, so this takes the place of statistics in the entry before.
            buffer[end : end + head_size] = head
            length.value = head_size + size
            if ask(descriptor, protocol_of_ip, option, begin + end, length_at) < 0:
                if self._ctypes.get_errno() == errno.ESRCH:
                    continue
                raise self._failed()
            heads.append(head)
            end += size
        words = memoryview(buffer)[head_size : end + head_size].cast("I")
        columns = [words[place :: entry_size // words.itemsize].tobytes() for place in range(SERVER_WORDS)]
        return b"".join((SERVERS_HEAD.pack(len(heads), end // entry_size), *heads, *columns))

    def _address(self, buffer: bytearray) -> int:
        return self._ctypes.addressof((self._ctypes.c_char * len(buffer)).from_buffer(buffer))

    def _ask(self, option: int, address: int, size: int) -> None:
        """Let the kernel fill in a buffer, by its address."""
        self._length.value = size
        if self._getsockopt(self._socket.fileno(), socket.IPPROTO_IP, option, address, self._length_at) < 0:
            raise self._failed()

    def _failed(self) -> OSError:
        code = self._ctypes.get_errno()
        return OSError(code, f"IPVS: {os.strerror(code)}")


class GuardedService:
    """An IPVS service that is guarded: `probe` is the message that asks for it, `restore` the one that adds it.

    Times are in nanoseconds, by time.monotonic_ns().
    """

    def __init__(self, family: int, probe: bytes, restore: bytes) -> None:
        self.family = family
        self.probe = probe
        self.restore = restore
        self._last_seen: int | None = None
        # The errno that was reported last, while it lasts. 0: none.
        self._reported = 0
        self._restores: deque[int] = deque(maxlen=GUARD_MAX_RESTORES)

    def note_seen(self, now: int) -> None:
        """Record that the service was there at this time."""
        self._last_seen = now
        self._reported = 0

    def may_restore(self, now: int) -> bool:
        """Return whether the service may be restored now. If so, count it as a restore."""
        if len(self._restores) == GUARD_MAX_RESTORES and now - self._restores[0] < 10**9:
            return False
        self._restores.append(now)
        self._reported = 0
        return True

    def report(self, code: int) -> bytes:
        """Return what to report to the host, GUARDED_BODY, for a restore that ended with this errno.

        b"" if the same failure was reported already.
        """
        if code and code == self._reported:
            return b""
        self._reported = code
        since = NEVER
        if self._last_seen is not None:
            since = min((time.monotonic_ns() - self._last_seen) // 1000, NEVER)
        return GUARDED_BODY.pack(self.family, code, since)


class GuardLoop:
    """Looks for the guarded services again and again, and restores those that disappeared.

    `channel` is the netlink socket to the kernel. `agent` is the socket to the agent, which forwards the reports to the
    host; a report is dropped when that socket is full.
    """

    def __init__(self, services: list[GuardedService], channel: socket.socket, agent: socket.socket) -> None:
        self._services = services
        self._channel = channel
        self._agent = agent
        self._probes = b"".join(service.probe for service in services)
        self._answer = bytearray(READ_SIZE)

    def run(self, period: float) -> NoReturn:
        """Look every `period` seconds until the agent ends or the kernel fails. Then end the process."""
        try:
            self._close_inherited()
            while True:
                self.look()
                # The agent never sends anything, so its socket becomes readable when the agent ends. `select` takes
                # microseconds; `poll` takes only milliseconds.
                if select.select([self._agent], [], [], period)[0]:
                    break
        finally:
            os._exit(0)

    def _close_inherited(self) -> None:
        """Close the descriptors of the agent, above all the port: only one process may have it open."""
        needed = {0, 1, 2, self._agent.fileno(), self._channel.fileno()}
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in needed:
                # The descriptor of the listing itself is closed already.
                with suppress(OSError):
                    os.close(int(name))

    def look(self) -> None:
        """Look for each service once, and restore what has disappeared."""
        self._channel.send(self._probes)
        now = time.monotonic_ns()
        # The kernel has answered all probes when `send` returns. A restore has an answer of its own, after them.
        for service, code in [(service, self._receive_errno()) for service in self._services]:
            if code == 0:
                service.note_seen(now)
            else:
                self._restore(service, code, now)

    def _restore(self, service: GuardedService, code: int, now: int) -> None:
        """Restore a service if the kernel answered that it does not exist. Report that, or what else it answered."""
        if code == errno.ESRCH:
            code = errno.EAGAIN
            if service.may_restore(now):
                self._channel.send(service.restore)
                code = self._receive_errno()
        report = service.report(code)
        if report:
            with suppress(BlockingIOError):
                self._agent.send(report, socket.MSG_DONTWAIT)

    def _receive_errno(self) -> int:
        """Return the errno of the next answer; 0 if it is what was asked for."""
        self._channel.recv_into(self._answer)
        kind, code = _ERROR_MESSAGE.unpack_from(self._answer)
        return -int(code) if kind == _NLMSG_ERROR else 0


class GuardProcess:
    """A process that runs a GuardLoop, and that ends when the agent does.

    From a flush of the IPVS table until the first service is restored, a packet of a connection ends that connection
    (RST). So neither a batch in the kernel nor a host that reads slowly may delay the loop. A thread would slow large
    dumps down: thread and agent would take Python's interpreter lock from each other at each system call.
    """

    def __init__(self, period: float, services: list[GuardedService]) -> None:
        """Start the process. It looks every `period` seconds."""
        # Carries the reports of the loop; readable without data after the process has ended.
        self.reports, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reports.setblocking(False)
        with other_end, open_netlink(GENERIC) as channel:
            self._child = os.fork()
            if self._child == 0:
                GuardLoop(services, channel, other_end).run(period)

    def end(self) -> None:
        """End the process. When this returns, nothing is restored any more; `reports` can still be read."""
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)


class Agent(PortServer):
    """Answers the requests of the host, one at a time, and forwards notifications and reports of the guard."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._filter = MessageFilter()
        self._relay = NetlinkRelay(port, self._filter)
        # The socket of the subscription.
        self._notifications: socket.socket | None = None
        self._guard: GuardProcess | None = None
        self._unmanaged = Unmanaged()

    def reset(self) -> None:
        """End the host's subscription and guard, and discard the answers that it did not read."""
        self._end_guard(forward=False)
        self._relay.reset()
        if self._notifications:
            self._notifications.close()
        self._notifications = None

    def sources(self) -> list[tuple[int, int]]:
        """Return the sockets of subscription and guard, if the host reads: until then, the kernel queues for it."""
        if self.port.pending:
            return []
        found = (self._notifications, self._guard.reports if self._guard else None)
        return [(each.fileno(), select.POLLIN) for each in found if each]

    def ready(self, source: int) -> None:
        """Forward notifications or reports to the host; or LOST, if the kernel dropped some or the guard ended."""
        if self._guard and source == self._guard.reports.fileno():
            if self._forward_reports(self._guard):
                self._end_guard(forward=False)
                self.port.push(0, LOST)
            return
        data = bytearray()
        try:
            while len(data) < CHUNK // 2:
                data += os.read(source, READ_SIZE)
        except BlockingIOError:
            pass
        except OSError:
            self.port.push(0, LOST)
        if data:
            self.port.push(0, NOTIFY, data)

    def handle(self, request: int, kind: int, payload: bytes) -> None:
        """Answer a request."""
        answer = b""
        if kind in {NETLINK, DUMPS}:
            answer = self._relay.exchange(request, kind, payload)
        elif kind == MODPROBE:
            modprobe(payload.decode(errors="replace"))
        elif kind == MODULES_GET:
            answer = "\n".join(map(find_module, payload.decode(errors="replace").split("\n"))).encode()
        elif kind == SYSCTL_GET:
            answer = b"\n".join(map(read_sysctl, payload.decode(errors="replace").split("\n")))
        elif kind == SYSCTL_SET:
            name, _, value = payload.decode(errors="replace").partition("=")
            write_sysctl(name, value)
        elif kind == SUBSCRIBE:
            self._subscribe(payload)
        elif kind == UNMANAGED_GET:
            answer = self._unmanaged.read().encode()
        elif kind == UNMANAGED_SET:
            self._unmanaged.write(payload.decode(errors="replace"))
        elif kind == LISTING:
            answer = self._read_file(request, "ip_vs")
        elif kind == SERVERS:
            answer = self._read_servers(request)
        elif kind == FILE:
            name = payload.decode(errors="replace")
            if name not in FILES:
                raise PermissionError(errno.EPERM, f"file {name!r} is not one that the agent may read")
            answer = self._read_file(request, name)
        elif kind == PROBE:
            answer = probe(payload)
        elif kind == GUARD:
            self._set_guard(payload)
        else:
            raise unknown_kind(kind)
        self.port.send(request, DONE, answer)

    def _subscribe(self, payload: bytes) -> None:
        """Subscribe to the groups of the payload, and to no others."""
        if len(payload) != SUBSCRIBE_BODY.size:
            raise OSError(errno.EINVAL, f"a subscription has {SUBSCRIBE_BODY.size} bytes, not {len(payload)}")
        (groups,) = SUBSCRIBE_BODY.unpack(payload)
        if groups & ~ALLOWED_GROUPS:
            raise PermissionError(errno.EPERM, f"netlink groups {groups & ~ALLOWED_GROUPS:#x} are not relayed")
        if not self._notifications:
            self._notifications = open_netlink(ROUTE)
            self._notifications.setblocking(False)
        self._notifications.bind((self._notifications.getsockname()[0], groups))

    def _read_file(self, request: int, name: str) -> bytes:
        """Send all of a file of /proc/net but its last part to the host, and return that part."""
        with open(f"/proc/net/{name}", "rb", buffering=0) as file:
            return self._send_most(request, iter(lambda: file.read(READ_SIZE), b""))

    def _read_servers(self, request: int) -> bytes:
        """Send all but the last part of what SERVERS is answered by to the host, and return that part."""
        with closing(LegacyIpvs()) as table:
            return self._send_most(request, table.read())

    def _send_most(self, request: int, found: Iterable[bytes]) -> bytes:
        """Send all of an answer but its last part to the host, as it is found, and return that part."""
        deadline = time.monotonic() + KERNEL_TIMEOUT
        part = bytearray()
        for data in found:
            part += data
            while len(part) >= CHUNK:
                self.port.send(request, MORE, part[:MAX_FRAME])
                del part[:MAX_FRAME]
                _check_deadline(deadline)
        return bytes(part)

    def _set_guard(self, payload: bytes) -> None:
        """Guard the services of the payload from now on, and no others. First forward the old guard's last reports."""
        self._end_guard(forward=True)
        (period,) = GUARD_HEAD.unpack_from(payload) if len(payload) >= GUARD_HEAD.size else (1,)
        if period == 0:
            return
        services = self._read_services(memoryview(payload)[GUARD_HEAD.size :])
        if period < GUARD_MIN_PERIOD or not 0 < len(services) <= GUARD_MAX_SERVICES:
            limits = f"1 to {GUARD_MAX_SERVICES} services and a period of at least {GUARD_MIN_PERIOD} us"
            raise OSError(errno.EINVAL, f"a guard has {limits}")
        self._guard = GuardProcess(period / 1e6, services)

    def _read_services(self, body: memoryview) -> list[GuardedService]:
        services = []
        while body:
            if len(body) < GUARD_SERVICE_HEAD.size:
                raise _cut_short("guard")
            family, probe_size, restore_size = GUARD_SERVICE_HEAD.unpack_from(body)
            middle = GUARD_SERVICE_HEAD.size + probe_size
            end = middle + restore_size
            if end > len(body):
                raise _cut_short("guard")
            probe = self._read_message(body[GUARD_SERVICE_HEAD.size : middle], _IPVS_CMD_GET_SERVICE, _NLM_F_REQUEST)
            restore = self._read_message(body[middle:end], _IPVS_CMD_NEW_SERVICE, _NLM_F_REQUEST | _NLM_F_ACK)
            services.append(GuardedService(family, probe, restore))
            body = body[end:]
        return services

    def _read_message(self, data: memoryview, command: int, flags: int) -> bytes:
        """Return a message, padded, with these flags instead of the host's: so the kernel sends exactly one answer."""
        count = len(self._filter.split(GENERIC, data))
        if count != 1 or data[_NLMSGHDR.size : _NLMSGHDR.size + 1] != bytes([command]):
            raise OSError(errno.EINVAL, "a guarded service is one message that asks for it and one that adds it")
        size, kind, _, sequence, _ = _NLMSGHDR.unpack_from(data)
        message = _NLMSGHDR.pack(size, kind, flags, sequence, 0) + bytes(data[_NLMSGHDR.size : size])
        return message.ljust(_align(size), b"\0")

    def _forward_reports(self, guard: GuardProcess) -> bool:
        """Send the reports of the guard to the host. Return whether the guard's process has ended."""
        with suppress(BlockingIOError):
            while report := guard.reports.recv(READ_SIZE):
                self.port.push(0, GUARDED, report)
            return True
        return False

    def _end_guard(self, *, forward: bool) -> None:
        """End the guard, if there is one. `forward`: send its last reports to the host."""
        guard, self._guard = self._guard, None
        if guard:
            guard.end()
            if forward:
                self._forward_reports(guard)
            guard.reports.close()


def open_any(words: list[str]) -> Port:
    """Open the port that the command line names. SystemExit if it names none, or if that one cannot be opened."""
    if not words or (len(words) == 1 and not words[0].startswith("-")):
        return open_port(*words or [PORT])
    if len(words) != 2 or words[0] not in {"--vsock", "--hvsock"} or not _is_port(words[1]):
        sys.exit("usage: agent.py [NAME] | --vsock PORT | --hvsock PORT (a number from 1 to 4294967294)")
    try:
        return VsockPort(int(words[1]), hybrid=words[0] == "--hvsock")
    except OSError as error:
        why = _WHY_NO_VSOCK.get(error.errno or 0, "")
        sys.exit(f"agent.py: cannot listen at vsock port {words[1]}: {error.strerror}{why}")


def _is_port(text: str) -> bool:
    return len(text) <= 10 and text.isascii() and text.isdecimal() and 0 < int(text) < 0xFFFFFFFF


if __name__ == "__main__":
    serve(Agent(open_any(sys.argv[1:])))
