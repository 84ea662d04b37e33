"""What is listed is read as it was, as far as a listing says it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given

from reconciler.formats.ipvsadm.listing import in_order, list_services, parse_listing
from reconciler.model.ipvs import Server, Service
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
