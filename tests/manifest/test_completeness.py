"""Each field of the model is in the schema with its default, and in what is written and read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reconciler.manifest import interface, ipvs, neighbour, route, rule, sandbox, service
from reconciler.manifest.finding import Finding
from reconciler.manifest.sandbox import complete, read_sections
from reconciler.manifest.schema import schema_text
from reconciler.model.interface import Address, Interface
from reconciler.model.ipvs import Excluded, Ipvs, Server, Service, Timeouts
from reconciler.model.made import KINDS, made
from reconciler.model.metric import BY_FIELD
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import NextHop, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import KataAddress, LibvirtAddress, NetnsAddress, Sandbox, VmAddress
from reconciler.values import MISSING, fields, is_dataclass, replace

NIC = Interface(name="eth0", device="tap0", hw_addr="02:42:20:6f:a3:69", mtu=1500)
# A value of each attribute that is not the usual one.
NAMED: dict[str, Any] = {
    "alias": "uplink to rack 7",
    "txQueueLen": 1000000,
    "gsoMaxSize": 524280,
    "arp": False,
    "allmulticast": True,
}
HOP = NextHop(device="eth0")
ROUTE = Route(dest="10.8.0.0/16", nexthops=(HOP,))
RULE = Rule(family="ipv4", priority=100, table=5000)
NEIGHBOUR = Neighbour(address="10.0.0.9", device="eth0", hw_addr="02:42:20:6f:a3:99")
SERVER = Server(address="172.17.0.4", port=80)
TUNNEL = replace(SERVER, forward="tunnel", tun_type="gue", tun_port=6080)
SERVICE = Service(protocol="udp", address="172.17.0.7", port=80)
STICKY = replace(SERVICE, persistent=300)
change = replace

# For each class and field something whose value there is no default.
EXAMPLES: dict[type, dict[str, Any]] = {
    NetnsAddress: {
        "name": NetnsAddress(name="web-1"),
        "path": NetnsAddress(path="/run/netns/web-1"),
        "pid": NetnsAddress(pid=4194304),
    },
    LibvirtAddress: {
        "domain": LibvirtAddress(domain="web-1"),
        "uri": LibvirtAddress(domain="web-1", uri="qemu+unix:///system?socket=/srv/libvirt-sock"),
        "guest_agent": LibvirtAddress(domain="web-1", guest_agent=True),
    },
    VmAddress: {
        "name": VmAddress(name="web-1"),
        "qmp": VmAddress(qmp="/run/q.sock", agent="/run/a.sock"),
        "agent": VmAddress(qmp="/run/q.sock", agent="/run/a.sock"),
        "guest_agent": VmAddress(qmp="/run/q.sock", guest_agent="/run/g.sock"),
    },
    KataAddress: {
        "id": KataAddress(id="6ec7a98"),
        "runtime": KataAddress(id="6ec7a98", runtime="/opt/kata-runtime"),
    },
    Address: {
        "address": Address(address="10.0.0.2/24"),
        "dad": Address(address="fd00::2/64", dad=False),
        "label": Address(address="10.0.0.2/24", label="eth0:1"),
        "scope": Address(address="10.0.0.2/24", scope="host"),
        "metric": Address(address="10.0.0.2/24", metric=4294967295),
        "noprefixroute": Address(address="10.0.0.2/24", noprefixroute=True),
        "peer": Address(address="10.0.0.2/32", peer="10.0.0.9"),
    },
    Interface: {
        "name": NIC,
        "device": NIC,
        "hw_addr": NIC,
        "mtu": NIC,
        "up": change(NIC, up=False),
        "addresses": change(NIC, addresses=(Address(address="fd00::2/64"), Address(address="10.0.0.2/24"))),
        "queues": change(NIC, queues=256),
        "vhost_user_socket": change(NIC, vhost_user_socket="/run/vhost-user1"),
        "sysctls": change(NIC, sysctls=(("accept_ra", 0), ("ipv4.forwarding", 1))),
        "altnames": change(NIC, altnames=("a", "b")),
        "attributes": change(NIC, attributes=tuple(NAMED.items())),
        "made": change(NIC, device="vlan:eth0", made=made("vlan", {"id": 7}, "eth1"), hw_addr="", mtu=0),
        "master": change(NIC, master="br0"),
    },
    NextHop: {
        "device": HOP,
        "gateway": change(HOP, gateway="10.0.0.1"),
        "weight": change(HOP, weight=256),
        "on_link": change(HOP, gateway="10.0.0.1", on_link=True),
    },
    Route: {
        "dest": ROUTE,
        "type": Route(dest="10.8.0.0/16", type="prohibit"),
        "nexthops": change(ROUTE, nexthops=(HOP, NextHop(device="eth1"))),
        "table": change(ROUTE, table=4294967295),
        "metric": change(ROUTE, metric=4294967295),
        "source": change(ROUTE, source="10.0.0.2"),
        "mtu": change(ROUTE, mtu=65520),
        "mtu_lock": change(ROUTE, mtu=1400, mtu_lock=True),
        "metrics": change(
            ROUTE,
            metrics=(
                *(("window", 4294967295), ("advmss", 65495), ("hoplimit", 255), ("initcwnd", 4294967295)),
                *(("features", 1), ("rtoMin", 4294967295), ("initrwnd", 4294967295), ("quickack", 1)),
                ("congctl", "cubic"),
            ),
        ),
        "scope": change(ROUTE, scope="host"),
        "pref": Route(dest="2001:db8::/32", nexthops=(HOP,), metric=1024, pref="low"),
        "tos": change(ROUTE, tos=252),
    },
    Rule: {
        "family": change(RULE, family="ipv6"),
        "priority": RULE,
        "from_": change(RULE, from_="10.0.0.0/16"),
        "to": change(RULE, to="10.8.0.0/16"),
        "iif": change(RULE, iif="eth0"),
        "oif": change(RULE, oif="eth0"),
        "fwmark": change(RULE, fwmark=16, fwmask=0xFFFFFFFF),
        "fwmask": change(RULE, fwmark=16, fwmask=255),
        "ipproto": change(RULE, ipproto=6),
        "sport": change(RULE, sport=(1000, 2000)),
        "dport": change(RULE, dport=(443, 443)),
        "uidrange": change(RULE, uidrange=(1000, 1999)),
        "tos": change(RULE, tos=16),
        "suppress_prefixlength": change(RULE, suppress_prefixlength=0),
        "l3mdev": change(RULE, l3mdev=True, table=0),
        "invert": change(RULE, invert=True),
        "action": change(RULE, action="prohibit", table=0),
        "table": RULE,
        "goto": change(RULE, action="goto", table=0, goto=200),
    },
    Neighbour: {
        "address": NEIGHBOUR,
        "device": NEIGHBOUR,
        "hw_addr": NEIGHBOUR,
        "proxy": change(NEIGHBOUR, hw_addr="", proxy=True),
        "router": change(NEIGHBOUR, address="fd00::9", router=True),
    },
    Server: {
        "address": SERVER,
        "port": SERVER,
        "forward": change(SERVER, forward="dr"),
        "weight": change(SERVER, weight=0),
        "upper_threshold": change(SERVER, upper_threshold=1073741823),
        "lower_threshold": change(SERVER, upper_threshold=2, lower_threshold=1),
        "tun_type": TUNNEL,
        "tun_port": TUNNEL,
        "tun_checksum": change(TUNNEL, tun_checksum="remcsum"),
    },
    Service: {
        "protocol": SERVICE,
        "address": SERVICE,
        "port": SERVICE,
        "scheduler": change(SERVICE, scheduler="twos"),
        "scheduler_flags": change(SERVICE, scheduler_flags=("flag-1", "flag-3")),
        "persistent": STICKY,
        "netmask": change(STICKY, netmask="255.255.255.0"),
        "persistence_engine": change(STICKY, persistence_engine="sip"),
        "one_packet": change(SERVICE, one_packet=True),
        "servers": change(SERVICE, servers=(SERVER, TUNNEL)),
        "ignore": change(SERVICE, ignore=("weight",)),
    },
    Timeouts: {
        "tcp": Timeouts(tcp=1296000),
        "tcpfin": Timeouts(tcpfin=1296000),
        "udp": Timeouts(udp=1296000),
    },
    Excluded: {
        "prefix": Excluded(prefix="10.9.0.0/24"),
        "fwmark": Excluded(fwmark=4294967295),
    },
    Ipvs: {
        "services": Ipvs(services=(SERVICE,)),
        "timeouts": Ipvs(timeouts=Timeouts(udp=1)),
        "sysctls": Ipvs(sysctls=(("conntrack", 1), ("sloppy_tcp", 0))),
        "exclude": Ipvs(exclude=(Excluded(fwmark=7),)),
        "drain": Ipvs(drain=2678400),
        "guard": Ipvs(guard="nft"),
    },
}
# No manifest says these: a desired neighbour never expires, what we want carries our mark, no
# desired server drains, and only what is observed can have what we cannot express.
NOT_SAID = {
    (NetnsAddress, "started"),
    *((Interface, "marked"), (Neighbour, "permanent"), (Service, "marked")),
    *((Service, "draining"), (Service, "other_flags")),
    *((Route, field) for field in ("protocol", "from_")),
    *((Address, field) for field in ("protocol",)),
    *((kind, "opaque") for kind in (Route, Rule, Neighbour, Address)),
    *((kind, "protocol") for kind in (Rule, Neighbour)),
}
# A port is said with its address, and a service's address at its protocol.
SAID_AS = {
    (Service, "protocol"): "udp",
    (Interface, "up"): "state",
    (Service, "address"): "udp",
    (Service, "port"): "udp",
    (Server, "port"): "address",
    (Interface, "made"): "vlan",
    (Rule, "fwmask"): "fwmark",
    # Each metric is a field, and each attribute.
    (Route, "metrics"): "initcwnd",
    (Interface, "attributes"): "txQueueLen",
}
ALSO_SAID = {
    # A route of one next hop says it in its own fields.
    Route: {"gateway", "device", "onLink", *BY_FIELD},
    # Each kind of link that is made in the sandbox, and each attribute.
    Interface: (KINDS.keys() | NAMED.keys()) - {"vlan", "txQueueLen"},
    # The other protocols, and what only a mark must say.
    Service: {"tcp", "sctp", "fwmark", "family"},
    # The same as `services`.
    Ipvs: {"rules", "rulesFile"},
}

# Defaults of what the model has in another form.
ALSO_DEFAULTS: dict[type, dict[str, Any]] = {
    Route: {"onLink": False, "features": [], "quickack": False},
    Service: {"family": "ipv4"},
    Interface: {"state": "up"},
}

# Defaults that stand for an absent field, although the schema alone would take them: a mark of 0, and an empty MAC
# address.
ABSENT = {(Rule, "fwmark"), (Neighbour, "hw_addr")}

SCHEMA: dict[str, Any] = json.loads(schema_text())

Reread = Callable[[Any], tuple[Any, Any]]


def reread_driver(each: NetnsAddress | VmAddress | LibvirtAddress | KataAddress) -> tuple[Any, Any]:
    data = sandbox.write(Sandbox(id="web-1", driver=each))
    (address,) = data["driver"].values()
    return address, complete(data, read_sections(data, [])).driver


def reread_interface(each: Interface) -> tuple[Any, Any]:
    data = interface.write(each)
    return data, accepted(lambda findings: interface.read(data, (), findings))


def reread_address(each: Address) -> tuple[Any, Any]:
    data, read = reread_interface(change(NIC, addresses=(each,)))
    (item,) = data["addresses"]
    return item if isinstance(item, dict) else {"address": item}, read.addresses[0]


def reread_route(each: Route) -> tuple[Any, Any]:
    data = route.write(each)
    return data, accepted(lambda findings: route.read(data, (), findings))


def reread_hop(each: NextHop) -> tuple[Any, Any]:
    data, read = reread_route(change(ROUTE, nexthops=(each, NextHop(device="eth9"))))
    return data["nexthops"][0], read.nexthops[0]


def reread_rule(each: Rule) -> tuple[Any, Any]:
    data = rule.write(each)
    return data, accepted(lambda findings: rule.read(data, (), findings))


def reread_neighbour(each: Neighbour) -> tuple[Any, Any]:
    data = neighbour.write(each)
    return data, accepted(lambda findings: neighbour.read(data, (), findings))


def reread_ipvs(each: Ipvs) -> tuple[Any, Any]:
    data = ipvs.write(each)
    return data, accepted(lambda findings: ipvs.read(data, None, findings)).ipvs


def reread_timeouts(each: Timeouts) -> tuple[Any, Any]:
    data, read = reread_ipvs(Ipvs(timeouts=each))
    return data["timeouts"], read.timeouts


def reread_excluded(each: Excluded) -> tuple[Any, Any]:
    data, read = reread_ipvs(Ipvs(exclude=(each,)))
    (item,) = data["exclude"]
    return item if isinstance(item, dict) else {"prefix": item}, read.exclude[0]


def reread_service(each: Service) -> tuple[Any, Any]:
    data = service.write(each)
    return data, accepted(lambda findings: service.read(data, (), findings, {}))


def reread_server(each: Server) -> tuple[Any, Any]:
    data, read = reread_service(change(SERVICE, servers=(each,)))
    return data["servers"][0], read.servers[0]


def accepted(read: Callable[[list[Finding]], Any]) -> Any:
    findings: list[Finding] = []
    value = read(findings)
    assert findings == []
    return value


REREAD: dict[type, Reread] = {
    NetnsAddress: reread_driver,
    VmAddress: reread_driver,
    LibvirtAddress: reread_driver,
    KataAddress: reread_driver,
    Address: reread_address,
    Interface: reread_interface,
    NextHop: reread_hop,
    Route: reread_route,
    Rule: reread_rule,
    Neighbour: reread_neighbour,
    Server: reread_server,
    Service: reread_service,
    Timeouts: reread_timeouts,
    Excluded: reread_excluded,
    Ipvs: reread_ipvs,
}
ROWS = [(kind, field, example) for kind, examples in EXAMPLES.items() for field, example in examples.items()]


def properties(kind: type) -> dict[str, dict[str, Any]]:
    """Return the properties that the schema has for the fields of a class, by name."""
    nic, way, section, virtual, real = (
        SCHEMA["$defs"][name]["properties"] for name in ("interface", "route", "ipvs", "service", "server")
    )
    drivers = SCHEMA["properties"]["driver"]["properties"]
    found: dict[type, dict[str, dict[str, Any]]] = {
        NetnsAddress: drivers["netns"]["properties"],
        VmAddress: drivers["vm"]["properties"],
        LibvirtAddress: drivers["libvirt"]["properties"],
        KataAddress: drivers["kata"]["properties"],
        Address: nic["addresses"]["items"]["properties"],
        Interface: nic,
        NextHop: way["nexthops"]["items"]["properties"],
        Route: way,
        Rule: SCHEMA["$defs"]["rule"]["properties"],
        Neighbour: SCHEMA["$defs"]["neighbour"]["properties"],
        Server: real,
        Service: virtual,
        Timeouts: section["timeouts"]["properties"],
        # A network is an item by itself.
        Excluded: {"prefix": section["exclude"]["items"], **section["exclude"]["items"]["properties"]},
        Ipvs: section,
    }
    return found[kind]


def defaults(kind: Any) -> dict[str, Any]:
    """Return the fields of a class, and the default of each."""
    if is_dataclass(kind):
        return {field.name: field.default for field in fields(kind)}
    return {field: kind._field_defaults.get(field, MISSING) for field in kind._fields}


def said(kind: type, field: str) -> str:
    """Return the name of a field in a manifest."""
    if (kind, field) in SAID_AS:
        return SAID_AS[kind, field]
    first, *others = field.split("_")
    return first + "".join(word.capitalize() for word in others)


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_every_field_has_an_example_and_a_property(kind: Any) -> None:
    fields = {field for field in defaults(kind) if (kind, field) not in NOT_SAID}
    assert set(EXAMPLES[kind]) == fields
    assert set(properties(kind)) == {said(kind, field) for field in fields} | ALSO_SAID.get(kind, set())


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_the_schema_has_the_defaults_of_the_model(kind: Any) -> None:
    expected = dict(ALSO_DEFAULTS.get(kind, {}))
    for field, default in defaults(kind).items():
        if (kind, field) in {*NOT_SAID, *SAID_AS, *ABSENT} or default is MISSING:
            continue
        written = [] if default == () else default
        schema = properties(kind)[said(kind, field)] | {"$defs": SCHEMA["$defs"]}
        # A default that no manifest can write, such as None, means: absent.
        if Draft202012Validator(schema).is_valid(written):
            expected[said(kind, field)] = written
    found = {name: each["default"] for name, each in properties(kind).items() if "default" in each}
    assert found == expected


@pytest.mark.parametrize("example", SCHEMA["examples"] + SCHEMA["properties"]["ipvs"]["examples"])
def test_an_example_of_a_whole_section_is_read(example: dict[str, Any]) -> None:
    whole = example if "apiVersion" in example else {"ipvs": {k: v for k, v in example.items() if k != "rulesFile"}}
    assert accepted(lambda findings: read_sections(whole, findings)) is not None


@pytest.mark.parametrize("example", SCHEMA["$defs"]["interface"]["examples"])
def test_an_example_of_an_interface_is_read(example: dict[str, Any]) -> None:
    assert accepted(lambda findings: interface.read(example, (), findings)) is not None


@pytest.mark.parametrize("example", SCHEMA["$defs"]["route"]["examples"])
def test_an_example_of_a_route_is_read(example: dict[str, Any]) -> None:
    assert accepted(lambda findings: route.read(example, (), findings)) is not None


@pytest.mark.parametrize("example", SCHEMA["$defs"]["rule"]["examples"])
def test_an_example_of_a_rule_is_read(example: dict[str, Any]) -> None:
    assert accepted(lambda findings: rule.read(example, (), findings)) is not None


@pytest.mark.parametrize("example", SCHEMA["$defs"]["neighbour"]["examples"])
def test_an_example_of_a_neighbour_is_read(example: dict[str, Any]) -> None:
    assert accepted(lambda findings: neighbour.read(example, (), findings)) is not None


@pytest.mark.parametrize("example", SCHEMA["$defs"]["service"]["examples"])
def test_an_example_of_a_service_is_read(example: dict[str, Any]) -> None:
    assert accepted(lambda findings: service.read(example, (), findings, {})) is not None


@pytest.mark.parametrize(
    ("kind", "field", "example"), ROWS, ids=[f"{kind.__name__}.{field}" for kind, field, _ in ROWS]
)
def test_every_field_is_written_and_read(kind: type, field: str, example: Any) -> None:
    assert getattr(example, field) != defaults(kind)[field]
    data, read = REREAD[kind](example)
    assert (said(kind, field) in data, read) == (True, example)


@pytest.mark.parametrize(
    ("kind", "field", "example"), ROWS, ids=[f"{kind.__name__}.{field}" for kind, field, _ in ROWS]
)
def test_a_field_that_has_its_default_is_not_written(kind: type, field: str, example: Any) -> None:
    by_default = {
        said(kind, name)
        for name, default in defaults(kind).items()
        if name != field and (kind, name) not in SAID_AS and getattr(example, name) == default
    }
    assert by_default & set(REREAD[kind](example)[0]) == set()
