"""The older interface of IPVS: one system call reads all servers of an IPv4 service, whereas netlink needs a dump.

Source: linux/ip_vs.h (IP_VS_SO_GET_*) and net/netfilter/ipvs/ip_vs_ctl.c (do_ip_vs_get_ctl). It tells the address,
port, forward, weight and thresholds of a server, but no tunnel, and neither services nor servers of IPv6. So a service
whose servers are here as desired needs no dump, unless it has tunnels.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from reconciler.errors import ChannelError, ProtocolError
from reconciler.model.address import is_ipv6, pack
from reconciler.model.ipvs import FWMARK, Server, Service
from reconciler.netlink.ipvs import FORWARD_NUMBERS, PROTOCOL_NUMBERS, number_of

# Options of a raw socket, from IP_VS_BASE_CTL on.
_GET_INFO = 64 + 1024 + 64 + 1
_GET_SERVICES, _GET_DESTS = _GET_INFO + 1, _GET_INFO + 3
# struct ip_vs_getinfo: version, size of the table of connections, number of services.
_INFO = struct.Struct("@III")
# struct ip_vs_service_entry: protocol, address, port, mark, scheduler, flags, timeout, netmask, number of servers, and
# statistics. struct ip_vs_dest_entry: address, port, flags, weight, thresholds, counts of connections, statistics.
_STATISTICS = "0QIIIQQIIIII0Q"
_SERVICE_ENTRY = struct.Struct(f"@H2x4s2s2xI16xIIII{_STATISTICS}")
_DEST_ENTRY_SIZE = struct.calcsize(f"@IHIiIIIII{_STATISTICS}")
# struct ip_vs_get_services before its entries, and struct ip_vs_get_dests: protocol, address, port, mark, number.
_SERVICES_HEAD = struct.Struct("@I0Q")
_DESTS_HEAD = struct.Struct("@H2x4s2s2xII0Q")
# What a server begins with, and what its flags have of its forward (IP_VS_CONN_F_FWD_MASK).
_SERVER = struct.Struct("=4s2s2xIiII")
_FORWARD_MASK = 7
_TUNNEL = "tunnel"
# A service, and a server without its family: the address, the port, the forward, the weight and both thresholds.
_Key = tuple[int, bytes, bytes, int]
_Server = tuple[bytes, bytes, int, int, int, int]


class LegacyAnswer(NamedTuple):
    """The servers of all IPv4 services, as the kernel has them.

    `data`: for each service, struct ip_vs_get_dests of `head_size` bytes, and as many struct ip_vs_dest_entry of
    `entry_size` bytes as that says. An entry of zeros stands for a server that has gone, or is of IPv6.
    """

    head_size: int
    entry_size: int
    data: bytes


def read(libc: ctypes.PyDLL) -> LegacyAnswer | None:
    """Read the servers of the namespace that this thread is in; None if its kernel has no IPVS."""
    try:
        return LegacyAnswer(_DESTS_HEAD.size, _DEST_ENTRY_SIZE, b"".join(_read(libc)))
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return None
        raise ChannelError(f"IPVS: {error.strerror}") from error


def _read(libc: ctypes.PyDLL) -> Iterator[bytes]:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as raw:

        def ask(option: int, head: bytes, size: int) -> bytes:
            buffer, length = ctypes.create_string_buffer(head, size), ctypes.c_uint(size)
            if libc.getsockopt(raw.fileno(), socket.IPPROTO_IP, option, buffer, ctypes.byref(length)) < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            return buffer.raw

        number = _INFO.unpack(raw.getsockopt(socket.IPPROTO_IP, _GET_INFO, _INFO.size))[2]
        head = _SERVICES_HEAD.pack(number)
        listed = ask(_GET_SERVICES, head, len(head) + number * _SERVICE_ENTRY.size)
        for start in range(_SERVICES_HEAD.size, len(listed), _SERVICE_ENTRY.size):
            protocol, address, port, mark, _, _, _, servers = _SERVICE_ENTRY.unpack_from(listed, start)[:8]
            head = _DESTS_HEAD.pack(protocol, address, port, mark, servers)
            try:
                yield ask(_GET_DESTS, head, len(head) + servers * _DEST_ENTRY_SIZE)
            except ProcessLookupError:
                # The service has gone meanwhile.
                continue


def agreeing(answer: LegacyAnswer, services: Iterable[Service]) -> list[Service]:
    """Return the services whose servers are just as desired, as far as the older interface tells all about them."""
    found = _servers(answer)
    return [
        service
        for service in services
        if not is_ipv6(service.address)
        and (servers := found.get(_key(service))) is not None
        and len(servers) == len(service.servers)
        and set(servers) == set(map(_expected, service.servers))
    ]


def _servers(answer: LegacyAnswer) -> dict[_Key, list[_Server]]:
    """Read the servers of each service."""
    head_size, entry_size, data = answer
    if head_size < _DESTS_HEAD.size or entry_size < _SERVER.size:
        raise ProtocolError(f"IPVS servers of {entry_size} bytes behind heads of {head_size}")
    found: dict[_Key, list[_Server]] = {}
    at, unpack = 0, _SERVER.unpack_from
    while at < len(data):
        if len(data) - at < head_size:
            raise ProtocolError("the list of IPVS servers is cut short")
        protocol, address, port, mark, count = _DESTS_HEAD.unpack_from(data, at)
        begin = at + head_size
        at = begin + count * entry_size
        if at > len(data):
            raise ProtocolError("the list of IPVS servers is cut short")
        servers = found.setdefault((0, b"", b"", mark) if mark else (protocol, address, port, 0), [])
        for place in range(begin, at, entry_size):
            server, server_port, flags, weight, upper, lower = unpack(data, place)
            servers.append((server, server_port, flags & _FORWARD_MASK, weight, upper, lower))
    return found


def _key(service: Service) -> _Key:
    if service.protocol == FWMARK:
        return 0, b"", b"", service.port
    return number_of(service.protocol, PROTOCOL_NUMBERS), pack(service.address), service.port.to_bytes(2, "big"), 0


def _expected(server: Server) -> _Server | None:
    """Return how a server is listed; None if it has a tunnel, of which the older interface tells too little."""
    if server.forward == _TUNNEL or is_ipv6(server.address):
        return None
    thresholds = server.upper_threshold, server.lower_threshold
    port = server.port.to_bytes(2, "big")
    return _address(server.address), port, number_of(server.forward, FORWARD_NUMBERS), server.weight, *thresholds


# A large table has few different addresses of servers.
@lru_cache(maxsize=1 << 16)
def _address(text: str) -> bytes:
    return pack(text)
