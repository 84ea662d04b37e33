"""IPVS messages: against pyroute2's reading of them, against the kernel's layout, and against bytes that lie."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from contextlib import suppress
from random import Random
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.generic import ipvs as oracle

from reconciler.errors import ProtocolError
from reconciler.model.ipvs import PERSISTENT_ZERO, Load, Server, Service, ServiceKey, Timeouts
from reconciler.netlink import ipvs, message
from reconciler.operations.ipvs import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    DrainServer,
    EditServer,
    EditService,
    SetTimeouts,
)
from reconciler.values import replace
from tests.examples import examples
from tests.formats.strategies import keys, servers, services_of
from tests.netlink import ipvs_kernel as kernel
from tests.netlink.ipvs_kernel import (
    FAMILY,
    HASHED,
    OUR_MARK,
    PERSISTENT,
    dumped_server,
    dumped_service,
    kernel_server,
    kernel_service,
    server_payload,
    service_payload,
)
from tests.netlink.strategies import attribute_bytes, spoiled

PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
METHODS = {0: "nat", 2: "tunnel", 3: "dr"}
# What an edit may change: all that ipvsadm can set, and our marks; never HASHED (0x2), never bits of others.
MASK = 0x1 | 0x4 | 0x8 | 0x10 | 0x20 | OUR_MARK | ipvs.DRAINING
WEB = Service(protocol="tcp", address="10.10.0.1", port=80, scheduler="rr")
REAL = Server(address="172.16.0.1", port=8080, weight=7, upper_threshold=9, lower_threshold=3)

any_service = keys().flatmap(services_of)
any_server = st.booleans().flatmap(lambda ipv6: servers(ipv6=ipv6, port=None))


def read_with_pyroute2(data: bytes) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Decode a request: the message, and what it says of a service and of a server by pyroute2's names."""
    told: Any = oracle.ipvsmsg(data)
    told.decode()
    values = dict(told["attrs"])
    service = dict(values["IPVS_CMD_ATTR_SERVICE"]["attrs"]) if "IPVS_CMD_ATTR_SERVICE" in values else {}
    server = dict(values["IPVS_CMD_ATTR_DEST"]["attrs"]) if "IPVS_CMD_ATTR_DEST" in values else {}
    return (
        told,
        {name.removeprefix("IPVS_SVC_ATTR_"): value for name, value in service.items()},
        {name.removeprefix("IPVS_DEST_ATTR_"): value for name, value in server.items()},
    )


def identity_words(key: ServiceKey) -> dict[str, Any]:
    """What pyroute2 reads in the name of a service."""
    protocol, address, port = key
    family = {"AF": AF_INET6 if ":" in address else AF_INET}
    if protocol == "fwmark":
        return {**family, "FWMARK": port}
    number = {name: number for number, name in PROTOCOLS.items()}[protocol]
    return {**family, "PROTOCOL": number, "ADDR": address, "PORT": port}


def server_words(server: Server) -> dict[str, Any]:
    """What pyroute2 reads of a server; it takes the port of a tunnel for one in host order."""
    return {
        "ADDR": server.address,
        "PORT": server.port,
        "FWD_METHOD": {name: number for number, name in METHODS.items()}[server.forward],
        "WEIGHT": server.weight,
        "U_THRESH": server.upper_threshold,
        "L_THRESH": server.lower_threshold,
        "TUN_TYPE": ("ipip", "gue", "gre").index(server.tun_type),
        "TUN_PORT": struct.unpack("=H", struct.pack("!H", server.tun_port))[0],
        "TUN_FLAGS": ("none", "csum", "remcsum").index(server.tun_checksum),
        "ADDR_FAMILY": AF_INET6 if ":" in server.address else AF_INET,
    }


def test_the_numbers_are_those_of_pyroute2() -> None:
    names = ("NEW_SERVICE", "SET_SERVICE", "DEL_SERVICE", "GET_SERVICE", "NEW_DEST", "SET_DEST", "DEL_DEST", "GET_DEST")
    for name in (*names, "SET_CONFIG", "GET_CONFIG"):
        assert getattr(ipvs, f"_{name}") == getattr(oracle, f"IPVS_CMD_{name}") == getattr(kernel, name)
    commands: Any = [name for name, _ in oracle.ipvsmsg.nla_map]
    timeouts = (commands.index(f"IPVS_CMD_ATTR_TIMEOUT_{name}") for name in ("TCP", "TCP_FIN", "UDP"))
    assert tuple(timeouts) == (ipvs._TIMEOUT_TCP, ipvs._TIMEOUT_FIN, ipvs._TIMEOUT_UDP)


@settings(deadline=None)
@given(any_service, st.integers(0, 0xFFFFFFFF), st.sampled_from((AddService, EditService)))
def test_pyroute2_reads_in_the_settings_of_a_service_what_was_meant(
    service: Service, sequence: int, kind: type[AddService | EditService]
) -> None:
    operation = EditService(service=service, before=WEB) if kind is EditService else AddService(service=service)
    data = ipvs.encode(operation, FAMILY, sequence)
    told, said, server = read_with_pyroute2(data)
    assert (told["cmd"], told["version"], told["reserved"]) == (2 if kind is EditService else 1, 1, 0)
    assert told["header"] == {
        "length": len(data),
        "type": FAMILY,
        "flags": message.REQUEST,
        "sequence_number": sequence,
        "pid": 0,
    }
    assert server == {}
    flags, netmask, engine = said.pop("FLAGS"), said.pop("NETMASK"), said.pop("PE_NAME", None)
    assert flags == {"flags": kernel_service(service).flags & MASK, "mask": MASK}
    if service.is_ipv6:
        # A length in host order, which pyroute2 takes for an IPv4 address.
        length = int(service.netmask or 128)
        assert netmask == ".".join(map(str, struct.pack("=I", length)))
    else:
        assert netmask == (service.netmask or "255.255.255.255")
    assert engine == service.persistence_engine
    assert said == identity_words(service.key) | {"SCHED_NAME": service.scheduler, "TIMEOUT": service.persistent}


@settings(deadline=None)
@given(keys(), any_server, st.integers(0, 0xFFFFFFFF))
def test_pyroute2_reads_in_the_requests_of_a_server_what_was_meant(
    key: ServiceKey, server: Server, sequence: int
) -> None:
    for operation, command in (
        (AddServer(service=key, server=server), 5),
        (EditServer(service=key, server=server, before=REAL), 6),
        (DrainServer(service=key, server=server, before=REAL), 6),
        (DeleteServer(service=key, server=server), 7),
    ):
        told, service, said = read_with_pyroute2(ipvs.encode(operation, FAMILY, sequence))
        assert told["cmd"] == command
        assert (told["header"]["flags"], told["header"]["sequence_number"]) == (message.REQUEST, sequence)
        assert service == identity_words(key)
        assert said == server_words(server)


@settings(deadline=None)
@given(any_service)
def test_pyroute2_reads_in_a_deletion_and_in_a_question_which_service_is_meant(service: Service) -> None:
    told, said, _ = read_with_pyroute2(ipvs.encode(DeleteService(service=service), FAMILY, 1))
    assert (told["cmd"], said) == (3, identity_words(service.key))
    told, said, _ = read_with_pyroute2(ipvs.dump_servers_request(FAMILY, ipvs.encode_identity(service.key), 7))
    assert (told["cmd"], said) == (8, identity_words(service.key))
    assert told["header"]["flags"] == message.REQUEST | message.DUMP


@pytest.mark.parametrize(
    ("timeouts", "said"),
    [
        (Timeouts(900, 120, 300), {"TCP": 900, "TCP_FIN": 120, "UDP": 300}),
        (Timeouts(None, 120, None), {"TCP_FIN": 120}),
        (Timeouts(2678400, None, 1), {"TCP": 2678400, "UDP": 1}),
        (Timeouts(), {}),
    ],
)
def test_timeouts_that_are_left_alone_are_not_said(timeouts: Timeouts, said: dict[str, int]) -> None:
    told, _, _ = read_with_pyroute2(ipvs.encode(SetTimeouts(timeouts=timeouts, before=Timeouts()), FAMILY, 1))
    assert told["cmd"] == 12
    assert {
        name.removeprefix("IPVS_CMD_ATTR_TIMEOUT_"): struct.unpack("=I", bytes.fromhex(value.replace(":", "")))[0]
        for name, value in told["attrs"]
    } == said


def test_a_service_byte_by_byte() -> None:
    service = replace(WEB, persistent=300, netmask="255.255.255.0", persistence_engine="sip")
    assert ipvs.encode(AddService(service=service), 0x1F, 5) == bytes.fromhex(
        "70000000 1f00 0100 05000000 00000000"  # nlmsghdr
        "01 01 0000 5c00 0100"  # genlmsghdr, SERVICE
        "0600 0100 0200 0000"  # AF
        "0600 0200 0600 0000"  # PROTOCOL
        "1400 0300 0a0a0001 000000000000000000000000"  # ADDR
        "0600 0400 0050 0000"  # PORT
        "0700 0600 727200 00"  # SCHED_NAME
        "0800 0b00 73697000"  # PE_NAME
        "0c00 0700 01000040 3d000060"  # FLAGS
        "0800 0800 2c010000"  # TIMEOUT
        "0800 0900 ffffff00"  # NETMASK
    )


def test_a_server_byte_by_byte() -> None:
    server = Server(
        address="fd00::9",
        port=80,
        forward="tunnel",
        weight=258,
        upper_threshold=5,
        lower_threshold=4,
        tun_type="gue",
        tun_port=6080,
        tun_checksum="remcsum",
    )
    assert ipvs.encode(AddServer(service=("fwmark", "::", 7), server=server), 0x1F, 5) == bytes.fromhex(
        "88000000 1f00 0100 05000000 00000000"
        "05 01 0000"
        "1400 0100 0600 0100 0a00 0000 0800 0500 07000000"  # SERVICE: AF, FWMARK
        "6000 0200"
        "1400 0100 fd000000000000000000000000000009"  # ADDR
        "0600 0200 0050 0000"  # PORT
        "0800 0300 02000000"  # FWD_METHOD
        "0800 0400 02010000"  # WEIGHT
        "0500 0d00 01 000000"  # TUN_TYPE
        "0600 0e00 17c0 0000"  # TUN_PORT
        "0600 0f00 0200 0000"  # TUN_FLAGS
        "0800 0500 05000000"  # U_THRESH
        "0800 0600 04000000"  # L_THRESH
        "0600 0b00 0a00 0000"  # ADDR_FAMILY
    )


def test_the_question_for_the_family_byte_by_byte() -> None:
    assert ipvs.family_request(1) == bytes.fromhex(
        "20000000 1000 0500 01000000 00000000 03 01 0000 0900 0200 4950565300 000000"
    )


@pytest.mark.parametrize(("address", "family"), [("0.0.0.0", AF_INET), ("::", AF_INET6)])
def test_a_mark_is_one_service_in_each_family(address: str, family: int) -> None:
    service = Service(protocol="fwmark", address=address, port=4294967295)
    assert ipvs.encode_identity(service.key) == kernel.u16(1, family) + kernel.u32(5, 4294967295)
    assert ipvs.decode_service(service_payload(dumped_service(kernel_service(service)))) == service


# A dump as the kernel builds it.


@settings(deadline=None)
@given(any_service, st.booleans())
def test_a_dumped_service_is_read_as_it_is(service: Service, marked: bool) -> None:
    payload = service_payload(dumped_service(kernel_service(replace(service, marked=marked))))
    assert ipvs.is_service(payload)
    assert not ipvs.is_server(payload)
    assert ipvs.decode_service(payload) == replace(service, servers=(), marked=marked)
    assert ipvs.identity(payload) == ipvs.encode_identity(service.key)
    assert ipvs.is_same_service(payload, ipvs.encode_settings(service)) == marked


@settings(deadline=None)
@given(any_server, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_a_dumped_server_is_read_as_it_is(server: Server, active: int, inactive: int) -> None:
    payload = server_payload(dumped_server(kernel_server(server, active, inactive)))
    assert ipvs.is_server(payload)
    assert not ipvs.is_service(payload)
    assert ipvs.decode_server(payload) == (server, Load(active, inactive))
    assert ipvs.server_bytes(payload) == ipvs.encode_server(server)


@settings(deadline=None)
@given(any_service)
def test_what_is_written_and_then_dumped_is_the_same_service(service: Service) -> None:
    dumped = message.attribute(1, ipvs.encode_settings(service) + kernel.stats(10, "=I"))
    assert ipvs.decode_service(kernel.head(1) + dumped) == replace(service, servers=())


@settings(deadline=None)
@given(any_server)
def test_what_is_written_and_then_dumped_is_the_same_server(server: Server) -> None:
    written = ipvs.encode_server(server)
    counters = kernel.u32(7, 3) + kernel.u32(8, 4) + kernel.u32(9, 5)
    assert ipvs.decode_server(kernel.head(5) + message.attribute(2, written[:-8] + counters + written[-8:])) == (
        server,
        Load(3, 4, 5),
    )


@settings(deadline=None)
@given(any_service, any_service)
def test_two_services_have_the_same_bytes_only_if_they_are_the_same(one: Service, other: Service) -> None:
    same = replace(one, servers=()) == replace(other, servers=())
    dumped = service_payload(dumped_service(kernel_service(one)))
    assert ipvs.is_same_service(dumped, ipvs.encode_settings(other)) == same
    assert (ipvs.encode_identity(one.key) == ipvs.encode_identity(other.key)) == (one.key == other.key)


CHANGED_SERVICE = {
    "scheduler": {"scheduler": "wrr"},
    "longer scheduler": {"scheduler": "wlc"},
    "scheduler flags": {"scheduler_flags": ("flag-1",)},
    "another flag": {"scheduler_flags": ("flag-3",)},
    "persistent": {"persistent": 300},
    "netmask": {"persistent": 300, "netmask": "255.255.255.0"},
    "engine": {"persistence_engine": "sip"},
    "one packet": {"one_packet": True},
    "port": {"port": 81},
    "address": {"address": "10.10.0.2"},
    "protocol": {"protocol": "sctp"},
    "family": {"address": "fd00::1"},
}


@pytest.mark.parametrize("change", CHANGED_SERVICE.values(), ids=CHANGED_SERVICE)
def test_each_field_of_a_service_is_in_its_bytes(change: dict[str, Any]) -> None:
    other = replace(WEB, **change)
    assert not ipvs.is_same_service(service_payload(dumped_service(kernel_service(other))), ipvs.encode_settings(WEB))
    assert not ipvs.is_same_service(service_payload(dumped_service(kernel_service(WEB))), ipvs.encode_settings(other))


TUNNEL = Server(address="172.16.0.1", port=80, forward="tunnel", tun_type="gue", tun_port=6080)
CHANGED_SERVER: dict[str, dict[str, Any]] = {
    "address": {"address": "172.16.0.2"},
    "family": {"address": "fd00::1"},
    "port": {"port": 81},
    "forward": {"forward": "dr"},
    "weight": {"weight": 2},
    "upper": {"upper_threshold": 1},
    "lower": {"lower_threshold": 1},
    "tunnel": {"tun_type": "gre"},
    "tunnel port": {"tun_port": 6081},
    "checksum": {"tun_checksum": "csum"},
}


@pytest.mark.parametrize("change", CHANGED_SERVER.values(), ids=CHANGED_SERVER)
def test_each_field_of_a_server_is_in_its_bytes(change: dict[str, Any]) -> None:
    other = replace(TUNNEL, **change)
    dumped = server_payload(dumped_server(kernel_server(other)))
    assert ipvs.server_bytes(dumped) == ipvs.encode_server(other) != ipvs.encode_server(TUNNEL)
    assert ipvs.decode_server(dumped) == (other, Load())


# The kernel counts; nothing that it counts says anything of what a server is.
def test_counters_are_no_part_of_a_server() -> None:
    dumped = {
        ipvs.server_bytes(server_payload(dumped_server(kernel_server(REAL, *n)))) for n in ((0, 0), (9, 1), (0, 8))
    }
    assert dumped == {ipvs.encode_server(REAL)}


def test_the_netmask_of_a_service_that_is_not_persistent_means_nothing() -> None:
    dumped = replace(kernel_service(WEB), netmask=b"\xff\xff\0\0", timeout=9)
    assert ipvs.decode_service(service_payload(dumped_service(dumped))) == WEB


@pytest.mark.parametrize("bit", [0x40, 0x80, 0x8000, 0x20000000, 0x80000000])
def test_flags_of_others_are_no_part_of_a_service(bit: int) -> None:
    dumped = kernel_service(WEB)
    dumped.flags |= bit
    found = ipvs.decode_service(service_payload(dumped_service(dumped)))
    assert (found, found.other_flags) == (WEB, 0 if bit == ipvs.DRAINING else bit)


@pytest.mark.parametrize(
    ("scheduler", "bits", "flags"),
    [
        ("rr", 0x38, ("flag-1", "flag-2", "flag-3")),
        ("sh", 0x38, ("sh-fallback", "sh-port", "flag-3")),
        ("mh", 0x10, ("mh-port",)),
        ("mh", 0x20, ("flag-3",)),
        ("none", 0x08, ("flag-1",)),
    ],
)
def test_scheduler_flags_have_the_names_that_their_scheduler_gives_them(
    scheduler: str, bits: int, flags: tuple[str, ...]
) -> None:
    dumped = replace(kernel_service(WEB), scheduler=scheduler)
    dumped.flags |= bits
    found = ipvs.decode_service(service_payload(dumped_service(dumped)))
    assert found == replace(WEB, scheduler=scheduler, scheduler_flags=flags)
    assert ipvs.scheduler_bits(scheduler, flags) == bits


UNKNOWN = message.attribute(40, b"what a newer kernel says") + message.attribute(16383, b"")


@settings(deadline=None)
@given(any_service, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_a_dumped_service_and_what_else_it_says_make_no_difference(
    service: Service, random: Random, first: bool
) -> None:
    attributes = dumped_service(kernel_service(service))
    random.shuffle(attributes)
    attributes.insert(0 if first else len(attributes), UNKNOWN)
    assert ipvs.decode_service(service_payload(attributes)) == replace(service, servers=())


@settings(deadline=None)
@given(any_server, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_a_dumped_server_and_what_else_it_says_make_no_difference(
    server: Server, random: Random, first: bool
) -> None:
    attributes = dumped_server(kernel_server(server, 1, 2))
    random.shuffle(attributes)
    attributes.insert(0 if first else len(attributes), UNKNOWN)
    assert ipvs.decode_server(server_payload(attributes)) == (server, Load(1, 2))


@settings(deadline=None)
@given(any_service)
def test_what_is_appended_does_not_make_another_service(service: Service) -> None:
    payload = service_payload([*dumped_service(kernel_service(service)), UNKNOWN]) + UNKNOWN
    assert ipvs.is_same_service(payload, ipvs.encode_settings(service))
    assert ipvs.identity(payload) == ipvs.encode_identity(service.key)


def test_a_kernel_before_tunnels_says_nothing_of_them() -> None:
    attributes = [each for each in dumped_server(kernel_server(REAL)) if each[2] not in {13, 14, 15}]
    assert len(attributes) == 12
    assert ipvs.decode_server(server_payload(attributes)) == (REAL, Load())


# What only other programs set: by its name, or by its number.
UNUSUAL_SERVERS: list[tuple[dict[str, int], dict[str, Any]]] = [
    ({"method": 1}, {"forward": "localnode"}),
    ({"method": 4}, {"forward": "bypass"}),
    ({"method": 7}, {"forward": "7"}),
    ({"tun_type": 3}, {"tun_type": "3"}),
    ({"tun_type": 255, "tun_flags": 0x103}, {"tun_type": "255", "tun_checksum": "259"}),
    ({"tun_type": 1, "tun_port": 99}, {"tun_type": "gue", "tun_port": 99}),
    ({"weight": 2**31 - 1, "upper": 2**31 - 1}, {"weight": 2**31 - 1, "upper_threshold": 2**31 - 1}),
]
UNUSUAL_SERVICES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"protocol": 47}, {"protocol": "47"}),
    ({"protocol": 65535}, {"protocol": "65535"}),
    ({"scheduler": "none"}, {"scheduler": "none"}),
    ({"flags": HASHED | PERSISTENT | OUR_MARK, "timeout": 0}, {"persistent": PERSISTENT_ZERO}),
    ({"scheduler": "mh", "flags": HASHED | OUR_MARK | 0x20000008}, {"scheduler": "mh", "draining": True}),
    ({"scheduler": "rr", "flags": HASHED | OUR_MARK | 0x20000008}, {"scheduler_flags": ("flag-1",)}),
]


@pytest.mark.parametrize(("numbers", "fields"), UNUSUAL_SERVERS)
def test_what_only_others_set_of_a_server_is_read_and_written(numbers: dict[str, Any], fields: dict[str, Any]) -> None:
    payload = server_payload(dumped_server(replace(kernel_server(REAL), **numbers)))
    found, _ = ipvs.decode_server(payload)
    assert found == replace(REAL, **fields)
    assert ipvs.encode_server(found) == ipvs.server_bytes(payload)


@pytest.mark.parametrize(("numbers", "fields"), UNUSUAL_SERVICES)
def test_what_only_others_set_of_a_service_is_read_and_written(numbers: dict[str, Any], fields: dict[str, Any]) -> None:
    payload = service_payload(dumped_service(replace(kernel_service(WEB), **numbers)))
    found = ipvs.decode_service(payload)
    assert found == replace(WEB, **fields)
    if not found.scheduler_flags:
        assert ipvs.is_same_service(payload, ipvs.encode_settings(found))


def test_timeouts_are_read() -> None:
    told = kernel.u32(6, 300) + UNKNOWN + kernel.u32(4, 900) + kernel.u32(5, 120)
    assert ipvs.decode_timeouts(kernel.head(12) + told) == Timeouts(900, 120, 300)


def test_the_number_of_the_family_is_read() -> None:
    name = message.attribute(2, b"IPVS\0")
    assert ipvs.decode_family(kernel.head(1) + name + kernel.u16(1, 0x1234) + UNKNOWN) == 0x1234


# What lies.


def dumped(kind: int, value: bytes | None, attributes: list[bytes]) -> bytes:
    """The attributes with another value of one kind, or without it."""
    kept = [each for each in attributes if each[2] != kind]
    return b"".join(kept if value is None else [*kept, message.attribute(kind, value)])


SERVICE = dumped_service(kernel_service(WEB))
SERVER = dumped_server(kernel_server(REAL))
MALFORMED_SERVICE = {
    "no family": (1, None, "IPVS number of 0 bytes"),
    "family": (1, b"\7\0", "IPVS service of address family 7"),
    "long family": (1, bytes(8), "IPVS number of 8 bytes"),
    "no address": (3, None, "IPVS attribute of 0 bytes; 16 were expected"),
    "short address": (3, bytes(4), "IPVS attribute of 4 bytes; 16 were expected"),
    "no port": (4, None, "IPVS attribute of 0 bytes; 2 were expected"),
    "odd port": (4, bytes(3), "IPVS attribute of 3 bytes; 2 were expected"),
    "long port": (4, b"\xff" * 4, "IPVS attribute of 4 bytes; 2 were expected"),
    "mark": (5, bytes(8), "IPVS number of 8 bytes"),
    "no scheduler": (6, None, "IPVS name ''"),
    "long scheduler": (6, b"x" * 17 + b"\0", f"IPVS name {'x' * 17!r}"),
    "very long scheduler": (6, b"x" * 5000, f"IPVS name {'x' * 20!r}"),
    "scheduler of two lines": (6, b"rr\nrr\0", r"IPVS name 'rr\nrr'"),
    "scheduler for a terminal": (6, b"\x1b[2J\0", r"IPVS name '\x1b[2J'"),
    "scheduler with an end in it": (6, b"r\0r\0", r"IPVS name 'r\x00r'"),
    "no flags": (7, None, "IPVS number of 0 bytes"),
    "short flags": (7, bytes(3), "IPVS number of 3 bytes"),
    "netmask": (9, bytes(2), "IPVS attribute of 2 bytes; 4 were expected"),
    "no netmask": (9, None, "IPVS attribute of 0 bytes; 4 were expected"),
    "engine": (11, b"\x07\0", r"IPVS name '\x07'"),
    "empty engine": (11, b"\0", "IPVS name ''"),
}


@pytest.mark.parametrize(("kind", "value", "words"), MALFORMED_SERVICE.values(), ids=MALFORMED_SERVICE)
def test_a_service_that_cannot_be_is_refused(kind: int, value: bytes | None, words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        ipvs.decode_service(kernel.head(1) + message.attribute(1, dumped(kind, value, SERVICE)))
    assert str(caught.value) == words


def test_a_persistent_service_needs_its_timeout() -> None:
    attributes = dumped_service(kernel_service(replace(WEB, persistent=300)))
    with pytest.raises(ProtocolError, match=r"^IPVS number of 0 bytes$"):
        ipvs.decode_service(kernel.head(1) + message.attribute(1, dumped(8, None, attributes)))


MALFORMED_SERVER = {
    "no family": (11, None, "IPVS number of 0 bytes"),
    "family": (11, b"\1\0", "IPVS server of address family 1"),
    "long port": (2, b"\xff" * 4, "IPVS attribute of 4 bytes; 2 were expected"),
    "long port of a tunnel": (14, b"\xff" * 4, "IPVS attribute of 4 bytes; 2 were expected"),
    "no method": (3, None, "IPVS number of 0 bytes"),
    "no address": (1, None, "IPVS attribute of 0 bytes; 16 were expected"),
    "long address": (1, bytes(17), "IPVS attribute of 17 bytes; 16 were expected"),
    "no weight": (4, None, "IPVS number of 0 bytes"),
    "no threshold": (5, None, "IPVS number of 0 bytes"),
    "no lower threshold": (6, None, "IPVS number of 0 bytes"),
    "no connections": (7, None, "IPVS number of 0 bytes"),
    "no inactive connections": (8, None, "IPVS number of 0 bytes"),
}


@pytest.mark.parametrize(("kind", "value", "words"), MALFORMED_SERVER.values(), ids=MALFORMED_SERVER)
def test_a_server_that_cannot_be_is_refused(kind: int, value: bytes | None, words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        ipvs.decode_server(kernel.head(5) + message.attribute(2, dumped(kind, value, SERVER)))
    assert str(caught.value) == words


@pytest.mark.parametrize("decode", [ipvs.decode_service, ipvs.decode_server], ids=["service", "server"])
def test_a_message_that_is_about_nothing_is_refused(decode: Callable[[bytes], object]) -> None:
    for payload in (b"", b"\1", kernel.head(1), kernel.head(1) + message.attribute(3, b"")):
        with pytest.raises(
            ProtocolError, match=r"^IPVS message without the attribute of its service, server or timeouts$"
        ):
            decode(payload)


def test_timeouts_that_are_missing_are_refused() -> None:
    for told in (b"", kernel.u32(4, 900), kernel.u32(4, 1) + kernel.u32(5, 1) + message.attribute(6, bytes(8))):
        with pytest.raises(ProtocolError, match=r"^IPVS number of [08] bytes$"):
            ipvs.decode_timeouts(kernel.head(12) + told)


def test_a_family_without_a_number_is_refused() -> None:
    for told in (b"", message.attribute(1, bytes(4)), message.attribute(2, b"IPVS\0")):
        with pytest.raises(ProtocolError, match=r"^the kernel's answer lacks the number of the IPVS family$"):
            ipvs.decode_family(kernel.head(1) + told)


READERS: tuple[Callable[[bytes], object], ...] = (
    ipvs.decode_service,
    ipvs.decode_server,
    ipvs.decode_timeouts,
    ipvs.decode_family,
    ipvs.identity,
    ipvs.server_bytes,
    ipvs.is_service,
    ipvs.is_server,
    lambda payload: ipvs.is_same_service(payload, ipvs.encode_settings(WEB)),
)

valid = st.sampled_from(
    [
        service_payload(SERVICE),
        service_payload(dumped_service(kernel_service(Service(protocol="fwmark", address="::", port=7)))),
        service_payload(
            dumped_service(
                kernel_service(Service(protocol="udp", address="fd00::1", port=53, persistent=9, netmask="64"))
            )
        ),
        server_payload(SERVER),
        server_payload(dumped_server(kernel_server(TUNNEL))),
        kernel.head(12) + kernel.u32(4, 1) + kernel.u32(5, 2) + kernel.u32(6, 3),
    ]
)
nested = st.builds(
    lambda command, kind, inner: kernel.head(command) + message.attribute(kind, inner),
    st.integers(0, 20),
    st.integers(0, 7),
    attribute_bytes(),
)


@settings(deadline=None, max_examples=examples(250))
@given(spoiled(valid) | nested | st.binary(max_size=300))
def test_bytes_that_lie_are_nothing_but_a_protocol_error(payload: bytes) -> None:
    for read in READERS:
        with suppress(ProtocolError):
            read(payload)


def test_every_value_of_every_size_in_every_attribute_is_read_or_refused() -> None:
    """Each attribute with values of all sizes up to 20 bytes and some larger ones, all zeros, all ones, and a count."""
    sizes = (*range(21), 255, 65531)
    values = [make(size) for size in sizes for make in (bytes, lambda n: b"\xff" * n, lambda n: bytes(range(n % 256)))]
    for (decode, outer, attributes), kind, value in itertools.product(
        ((ipvs.decode_service, 1, SERVICE), (ipvs.decode_server, 2, SERVER)), range(1, 17), values
    ):
        if len(value) < 65000:
            with suppress(ProtocolError):
                decode(kernel.head(outer) + message.attribute(outer, dumped(kind, value, attributes)))


def test_nested_garbage_is_read_no_deeper_than_it_is_meant() -> None:
    deep = b""
    while len(deep) < 60_000:
        deep = message.attribute(1, deep)
    for read in READERS:
        with suppress(ProtocolError):
            read(kernel.head(1) + message.attribute(1, deep))
