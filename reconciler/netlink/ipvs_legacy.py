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
import sys
from collections.abc import Iterator, Mapping

from reconciler.errors import ChannelError, ProtocolError
from reconciler.model.address import is_ipv6, pack
from reconciler.model.ipvs import Server, Service
from reconciler.netlink.ipvs import FORWARD_NUMBERS, identity_of, number_of

# Options of a raw socket, from IP_VS_BASE_CTL on.
_GET_INFO = 64 + 1024 + 64 + 1
_GET_SERVICES, _GET_DESTS = _GET_INFO + 1, _GET_INFO + 3
# struct ip_vs_getinfo: version, size of the table of connections, number of services.
_INFO = struct.Struct("@III")
# struct ip_vs_service_entry: protocol, address, port, mark, scheduler, flags, timeout, netmask, number of servers, and
# statistics. struct ip_vs_dest_entry: address, port, flags, weight, thresholds, counts of connections, statistics.
_STATISTICS = "0QIIIQQIIIII0Q"
_SERVICE_FIELDS = "@H4s2s2xI16x12xI"
_SERVICE_ENTRY = struct.Struct(
    f"{_SERVICE_FIELDS}{struct.calcsize(_SERVICE_FIELDS + _STATISTICS) - struct.calcsize(_SERVICE_FIELDS)}x"
)
_DEST_ENTRY_SIZE = struct.calcsize(f"@IHIiIIIII{_STATISTICS}")
# struct ip_vs_get_services before its entries, and struct ip_vs_get_dests: protocol, address, port, mark, number.
_SERVICES_HEAD = struct.Struct("@I0Q")
_DESTS_HEAD = struct.Struct("@H2x4s2s2xII0Q")
# What an answer has for some services at a time: the number of services, and that of all their servers.
_HEAD = struct.Struct("!II")
# Services whose servers are read into one buffer.
_AT_ONCE = 512
# The words of 32 bits that an entry of a server begins with: all but its counts and statistics.
_WORDS = 6
# What the third of them has of the forward (IP_VS_CONN_F_FWD_MASK).
_FORWARD_MASK = 7
_TUNNEL = "tunnel"
# The address, the port, the forward, the weight and both thresholds of a server, as the words have them.
_Server = tuple[int, int, int, int, int, int]


def read(libc: ctypes.PyDLL) -> bytes | None:
    """Read the servers of the namespace that this thread is in; None if its kernel has no IPVS.

    Return, for some services at a time: the number of services, and that of all their servers (_HEAD). Then struct
    ip_vs_get_dests of each service, which says how many servers are its own; and the first _WORDS words of struct
    ip_vs_dest_entry of all servers: the first of each, the second of each, and so on. An entry of zeros stands for a
    server that has gone, or is of IPv6.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as raw:
            return b"".join(_Reader(libc, raw).read())
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return None
        raise ChannelError(f"IPVS: {error.strerror}") from error


class _Reader:
    """Asks the kernel of a raw socket. Python's own `getsockopt` does not do: the question is in the buffer."""

    def __init__(self, libc: ctypes.PyDLL, raw: socket.socket) -> None:
        self._libc, self._raw = libc, raw

    def read(self) -> Iterator[bytes]:
        """Yield the answer, some services at a time. A service that has gone is left out."""
        number = _INFO.unpack(self._raw.getsockopt(socket.IPPROTO_IP, _GET_INFO, _INFO.size))[2]
        listed = bytearray(_SERVICES_HEAD.size + number * _SERVICE_ENTRY.size)
        _SERVICES_HEAD.pack_into(listed, 0, number)
        self._ask(_GET_SERVICES, _address_of(listed), len(listed))
        services = list(_SERVICE_ENTRY.iter_unpack(memoryview(listed)[_SERVICES_HEAD.size :]))
        for start in range(0, number, _AT_ONCE):
            yield self._read_servers(services[start : start + _AT_ONCE])

    def _read_servers(self, services: list[tuple[int, bytes, bytes, int, int]]) -> bytes:
        head_size = _DESTS_HEAD.size
        # A server that has gone since leaves zeros.
        buffer = bytearray(head_size + sum(each[-1] for each in services) * _DEST_ENTRY_SIZE)
        begin, end, heads = _address_of(buffer), 0, []
        for service in services:
            head, size = _DESTS_HEAD.pack(*service), service[-1] * _DEST_ENTRY_SIZE
            # The entries are to follow each other, so this takes the place of statistics in the entry before.
            buffer[end : end + head_size] = head
            try:
                self._ask(_GET_DESTS, begin + end, head_size + size)
            except ProcessLookupError:
                continue
            heads.append(head)
            end += size
        words = memoryview(buffer)[head_size : end + head_size].cast("I")
        columns = [words[place :: _DEST_ENTRY_SIZE // words.itemsize].tobytes() for place in range(_WORDS)]
        return b"".join((_HEAD.pack(len(heads), end // _DEST_ENTRY_SIZE), *heads, *columns))

    def _ask(self, option: int, address: int, size: int) -> None:
        """Let the kernel fill in a buffer, by its address."""
        length, place = ctypes.c_uint(size), ctypes.c_void_p(address)
        if self._libc.getsockopt(self._raw.fileno(), socket.IPPROTO_IP, option, place, ctypes.byref(length)) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def _address_of(buffer: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def count(answer: bytes) -> int:
    """Return how many services and servers an answer has. ProtocolError if it is cut short."""
    return sum(services + servers for services, servers, _ in _runs(answer))


def _runs(answer: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of an answer: the number of services, that of servers, and where the services begin."""
    at = 0
    while at < len(answer):
        if len(answer) - at < _HEAD.size:
            raise ProtocolError("the list of IPVS servers is cut short")
        services, servers = _HEAD.unpack_from(answer, at)
        begin = at + _HEAD.size
        at = begin + services * _DESTS_HEAD.size + servers * _WORDS * 4
        if at > len(answer):
            raise ProtocolError("the list of IPVS servers is cut short")
        yield services, servers, begin


def agreeing(answer: bytes, wanted: Mapping[bytes, Service]) -> list[bytes]:
    """Return which services have just the desired servers, as far as the older interface tells all about them.

    `wanted`: the desired services by their identities (`ipvs.encode_identity`).
    """
    found = _servers(answer)
    expected = _Expected()
    return [
        identity
        for identity, service in wanted.items()
        if (servers := found.get(identity)) is not None
        and len(servers) == len(service.servers)
        and set(servers) == set(map(expected.find, service.servers))
    ]


def _servers(answer: bytes) -> dict[bytes, list[_Server]]:
    """Read the servers of each service, by its identity."""
    found: dict[bytes, list[_Server]] = {}
    for services, servers, begin in _runs(answer):
        middle = begin + services * _DESTS_HEAD.size
        words = memoryview(answer)[middle : middle + servers * _WORDS * 4].cast("I")
        columns = [words[place * servers : (place + 1) * servers].tolist() for place in range(_WORDS)]
        columns[2] = [flags & _FORWARD_MASK for flags in columns[2]]
        rows = list(zip(*columns, strict=True))
        first = 0
        for protocol, address, port, mark, number in _DESTS_HEAD.iter_unpack(memoryview(answer)[begin:middle]):
            found.setdefault(identity_of(protocol, address, port, mark), []).extend(rows[first : first + number])
            first += number
        if first != servers:
            raise ProtocolError(f"{servers} IPVS servers are listed for services that have {first}")
    return found


class _Expected:
    """How desired servers are listed. Many services have the very same ones."""

    def __init__(self) -> None:
        self._found: dict[int, _Server | None] = {}

    def find(self, server: Server) -> _Server | None:
        """Return how a server is listed; None if it has what the older interface does not tell."""
        # The services keep their servers, so no other object has this number meanwhile.
        known = self._found.get(id(server))
        if known is None:
            known = self._found[id(server)] = _expected(server)
        return known


def _expected(server: Server) -> _Server | None:
    if server.forward == _TUNNEL or is_ipv6(server.address):
        return None
    address, port = pack(server.address), server.port.to_bytes(2, "big") + bytes(2)
    forward = number_of(server.forward, FORWARD_NUMBERS)
    thresholds = server.upper_threshold, server.lower_threshold
    return (
        int.from_bytes(address, sys.byteorder),
        int.from_bytes(port, sys.byteorder),
        forward,
        server.weight,
        *thresholds,
    )
