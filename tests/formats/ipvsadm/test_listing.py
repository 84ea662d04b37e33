"""What is listed is read as it was, as far as a listing says it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from reconciler.formats.ipvsadm.listing import in_order, list_services, parse_listing
from reconciler.model.ipvs import PERSISTENT_ZERO, Server, Service
from reconciler.values import replace
from tests.formats.strategies import services

HEAD = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n"


def shown(service: Service) -> Service:
    """Return a service without what is not listed."""
    servers = tuple(
        Server(address=each.address, port=each.port, forward=each.forward, weight=each.weight)
        for each in service.servers
    )
    return replace(service, servers=servers)


@given(services())
def test_what_is_listed_is_read_as_it_was(table: list[Service]) -> None:
    listing = "\n".join(list_services(table, lambda *_: (1, 2)))
    assert parse_listing(HEAD + listing) == in_order(map(shown, table))
    assert parse_listing("") == []


def test_what_has_no_name_is_listed_and_read_by_its_number() -> None:
    named, numbered, unknown = (
        Server(address=f"10.0.0.{n}", port=80, forward=word) for n, word in ((1, "bypass"), (2, "5"), (3, "unknown"))
    )
    service = Service(
        protocol="47",
        address="10.0.0.9",
        port=80,
        persistent=PERSISTENT_ZERO,
        other_flags=0x80,
        servers=(named, numbered),
    )
    listing = "\n".join(list_services([service], lambda *_: (1, 2)))
    assert "IP_47 10.0.0.9:80 wlc persistent 0 flags 0x80" in listing
    assert parse_listing(HEAD + listing) == [service]
    assert [each.other_flags for each in parse_listing(HEAD + listing)] == [0x80]
    (real,) = parse_listing("TCP  10.0.0.1:80 rr\n  -> 10.0.0.3:80 (null) 1 0 0")
    assert real.servers == (unknown,)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("TCP  web:http rr", 'line 3: TCP  web:http rr: "web" is not an IP address'),
        ("TCP  10.0.0.1:80", "line 3: TCP  10.0.0.1:80: not enough values to unpack"),
        ("TCP  10.0.0.1:80 rr persistent", "line 3: TCP  10.0.0.1:80 rr persistent: zip() argument 2 is shorter"),
        ("TCP  10.0.0.1:80 rr color 5", "line 3: TCP  10.0.0.1:80 rr color 5: unknown settings"),
        ("  -> 10.0.0.9:80 Masq 1 0 0", "line 3: -> 10.0.0.9:80 Masq 1 0 0: list index out of range"),
        ("TCP  10.0.0.1:80 rr\n  -> 10.0.0.9:80 Mask 1 0 0", "line 4: -> 10.0.0.9:80 Mask 1 0 0: 'Mask'"),
    ],
)
def test_a_listing_that_is_wrong(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        parse_listing(HEAD + line)
