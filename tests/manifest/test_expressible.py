"""What is left of any IPVS table is valid, and what is not is named."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reconciler.manifest.expressible import leave_out
from reconciler.manifest.ipvs import write
from reconciler.manifest.schema import check
from reconciler.model.ipvs import Ipvs
from reconciler.netlink import ipvs
from reconciler.values import replace
from tests.ipvs.test_unusual import any_service, servers_of, web
from tests.netlink.ipvs_kernel import dumped_server, dumped_service, server_payload, service_payload

HEAD: dict[str, Any] = {"apiVersion": "reconciler/v1", "sandbox": "box", "driver": {"netns": {"name": "box"}}}


def test_what_is_left_out_is_named_with_its_value() -> None:
    servers = [
        {"address": "10.0.0.1:80", "forward": "localnode"},
        {"address": "10.0.0.2:81", "forward": "dr"},
        {"address": "10.0.0.3:80", "forward": "tunnel", "tunType": "gue"},
        {"address": "10.0.0.4:80"},
    ]
    services = [{"tcp": "1.2.3.5:80", "servers": servers}, {"47": "1.2.3.6:80"}, {"udp": "1.2.3.7:53"}]
    document = HEAD | {"ipvs": {"sysctls": {"expire_nodest_conn": 5}, "drain": 2**29, "services": services}}
    assert {line[:75] for line in leave_out(document)} == {
        "ipvs: drain: 536870912 is above the maximum of 2678400",
        "ipvs: expire_nodest_conn: 5 is above the maximum of 1",
        'ipvs: tcp 1.2.3.5:80: address 10.0.0.1:80: forward localnode: "localnode" i',
        "ipvs: protocol 47 1.2.3.6:80: 47 1.2.3.6:80: unknown field; expected one of",
        "ipvs: tcp 1.2.3.5:80: address 10.0.0.3:80: tunPort: a gue tunnel needs a UD",
        "ipvs: tcp 1.2.3.5:80: address 10.0.0.2:81: address 10.0.0.2:81: dr does not",
    }
    assert document["ipvs"] == {
        "sysctls": {},
        "services": [{"tcp": "1.2.3.5:80", "servers": [{"address": "10.0.0.4:80"}]}, {"udp": "1.2.3.7:53"}],
    }


@given(st.lists(any_service, max_size=80), st.integers(0, 2**30))
def test_what_is_left_of_any_table_is_valid(table: list[dict[str, Any]], drain: int) -> None:
    services = []
    for number, fields in enumerate(table):
        dumped = web(number, **fields | {"servers": []})
        servers = [dumped_server(each) for each in servers_of(fields["servers"], number * 4)]
        read = tuple(ipvs.decode_server(server_payload(each))[0] for each in servers)
        services.append(replace(ipvs.decode_service(service_payload(dumped_service(dumped))), servers=read))
    document = HEAD | {"ipvs": write(Ipvs(services=tuple(services), drain=drain))}
    leave_out(document)
    assert check(document) == []
    assert leave_out(document) == []
