"""Each key and each value of a file has an effect: on the manifest, or on what is reported as left out or wrong."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.manifest.compose import compose

SAMPLES: dict[str, str] = {
    "ip": """\
[{"ifname": "eth0", "flags": ["UP"], "mtu": 1400, "group": "default", "qdisc": "noqueue", "link_type": "ether",
  "address": "02:42:20:6f:a3:69", "ifalias": "reconciler: device=tap0 hwaddr=02:00:00:00:00:01 mtu=1500",
  "inet6_addr_gen_mode": "eui64", "linkinfo": {"info_kind": "veth"}, "addr_info": [
  {"family": "inet", "local": "192.0.2.3", "prefixlen": 24, "scope": "global", "label": "eth0",
   "valid_life_time": 4294967295, "preferred_life_time": 4294967295},
  {"family": "inet6", "local": "2001:db8::3", "prefixlen": 64, "nodad": true}]},
 {"type": "unicast", "dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "table": "main", "protocol": "static",
  "scope": "global", "prefsrc": "192.0.2.3", "metric": 5, "flags": ["onlink"], "metrics": [{"mtu": 1300, "advmss": 9}]},
 {"dst": "10.2.0.0/16", "nexthops": [{"gateway": "192.0.2.2", "dev": "eth0", "weight": 3, "flags": ["onlink"]},
  {"via": {"family": "inet", "host": "192.0.2.3"}, "dev": "eth0", "weight": 1, "flags": []}]},
 {"type": "unreachable", "dst": "2001:db8:1::/48", "dev": "lo", "metric": 1024, "pref": "medium"},
 {"priority": 110, "not": null, "src": "10.0.0.0", "srclen": 8, "dst": "10.1.0.0", "dstlen": 16, "fwmark": "0x10",
  "fwmask": "0xff", "sport_start": 1, "sport_end": 2, "dport": 7, "uid_start": 1, "uid_end": 3, "ipproto": "tcp",
  "tos": "0x10", "iif": "eth0", "oif": "eth0", "table": "7", "suppress_prefixlen": 0, "protocol": "static"},
 {"priority": 111, "src": "all", "goto": 200}, {"priority": 112, "src": "all", "action": "prohibit"},
 {"priority": 113, "src": "all", "l3mdev": null, "iif": "eth0"},
 {"dst": "192.0.2.1", "dev": "eth0", "lladdr": "02:42:20:6f:a3:01", "state": ["PERMANENT"]},
 {"dst": "2001:db8::1", "dev": "eth0", "lladdr": "02:42:20:6f:a3:02", "router": null, "state": ["PERMANENT"]},
 {"dst": "192.0.2.7", "dev": "eth0", "proxy": null}]
""",
    "netplan": """\
network:
  version: 2
  renderer: networkd
  ethernets:
    id0:
      match: {name: ens3, macaddress: "02:42:20:6f:a3:70", driver: x}
      set-name: eth0
      macaddress: "02:42:20:6f:a3:69"
      dhcp4: true
      dhcp6: true
      accept-ra: true
      mtu: 1400
      addresses: [192.0.2.10/24, {192.0.2.11/24: {label: x, lifetime: 0}}]
      gateway4: 192.0.2.1
      gateway6: fe80::1
      nameservers: {addresses: [192.0.2.53]}
      routes:
        - {to: 203.0.113.0/24, via: 192.0.2.2, metric: 100, on-link: true, table: 5, from: 192.0.2.10, mtu: 1300,
           advertised-mss: 1200, scope: global, type: unicast}
        - {to: 10.0.0.0/8, type: blackhole, table: 6}
      routing-policy: [{from: 192.0.2.0/24, to: 10.0.0.0/8, table: 100, mark: 7, priority: 5, type-of-service: 16}]
  vlans: {vlan1: {id: 1, link: eth0}}
""",
    "nmstate": """\
interfaces:
- {name: eth0, type: ethernet, state: up, mac-address: "02:42:20:6F:A3:69", mtu: 1400, identifier: mac-address,
   alt-names: [{name: uplink-1}, {name: uplink-2, state: absent}],
   ipv4: {enabled: true, dhcp: true, address: [{ip: 192.0.2.10, prefix-length: 24}]},
   ipv6: {enabled: true, autoconf: true, dhcp: true, address: [{ip: "2001:db8::1", prefix-length: 64}]}}
- {name: br0, type: linux-bridge, state: up}
routes:
  running: [{destination: 10.1.0.0/16}]
  config:
  - {destination: 0.0.0.0/0, next-hop-address: 192.0.2.1, next-hop-interface: eth0, table-id: 0, metric: -1}
  - {destination: 10.8.0.0/16, next-hop-address: 192.0.2.2, next-hop-interface: eth0, weight: 2, source: 192.0.2.10}
  - {destination: 10.8.0.0/16, next-hop-address: 192.0.2.3, next-hop-interface: eth0, weight: 3, source: 192.0.2.10}
  - {destination: 10.9.0.0/16, route-type: blackhole, metric: 4, table-id: 9}
  - {destination: 10.7.0.0/16, state: absent, next-hop-interface: eth0}
route-rules:
  config:
  - {ip-from: 192.0.2.0/24, ip-to: 10.0.0.0/8, route-table: 200, fwmark: "0x10", fwmask: 0xff, priority: 3, iif: eth0,
     suppress-prefix-length: 0}
  - {family: ipv6, action: prohibit, priority: 5}
dns-resolver: {config: {server: [192.0.2.53]}}
""",
    "networkd": """\
[Match]
Name=eth0
MACAddress=02:42:20:6f:a3:70
Type=ether
[Link]
MACAddress=02:42:20:6f:a3:69
MTUBytes=1400
[Network]
Address=192.0.2.10/24
DHCP=ipv6
DNS=192.0.2.53
IPv6AcceptRA=no
VRF=red
[Address]
Address=2001:db8::1/64
DuplicateAddressDetection=none
PreferredLifetime=0
[Route]
Destination=203.0.113.0/24
Gateway=192.0.2.2
GatewayOnLink=yes
Metric=5
Table=100
PreferredSource=192.0.2.10
MTUBytes=1300
TCPAdvertisedMaximumSegmentSize=1200
Scope=link
Type=unicast
Protocol=dhcp
IPv6Preference=low
[Route]
Destination=10.0.0.0/8
Table=8
MultiPathRoute=192.0.2.3@eth0 3
MultiPathRoute=192.0.2.4 2
[RoutingPolicyRule]
From=192.0.2.0/24
To=10.0.0.0/8
FirewallMark=0x10/0xff
IPProtocol=tcp
SourcePort=1-9
DestinationPort=7
User=1-2
IncomingInterface=eth0
OutgoingInterface=eth0
TypeOfService=16
InvertRule=yes
SuppressPrefixLength=3
Table=7
Priority=6
Family=ipv4
[RoutingPolicyRule]
GoTo=99
Priority=7
[RoutingPolicyRule]
Type=prohibit
Priority=8
[RoutingPolicyRule]
L3MasterDevice=yes
Priority=9
[Neighbor]
Address=192.0.2.9
LinkLayerAddress=02:42:20:6f:a3:09
""",
}
# What says nothing beside another key, or only how long what is left out anyway lives.
REDUNDANT = {
    ("ip", "src"): "all",
    ("ip", "family"): "the family of `via` is that of its host",
    ("ip", "dev"): "a route of another type than unicast has `lo`",
    ("ip", "valid_life_time"): "without it, an address has no end",
    ("ip", "preferred_life_time"): "the same",
    ("ip", "scope"): "an IPv4 route with a gateway is global",
    ("ip", "label"): "the usual one",
    ("ip", "type"): "unicast",
    ("ip", "table"): "main",
    ("ip", "protocol"): "not of a daemon",
    ("ip", "qdisc"): "the usual one",
    ("ip", "group"): "the usual one",
    ("ip", "link_type"): "the usual one",
    ("ip", "inet6_addr_gen_mode"): "the usual one",
    ("ip", "pref"): "the usual one",
    ("ip", "weight"): "1",
    ("ip", "info_kind"): "a device of its own",
    ("ip", "linkinfo"): "the same",
    ("ip", "metric"): "the usual one of IPv6",
    ("ip", "flags"): "none, or UP",
    ("ip", "state"): "with an address that is complete",
    ("netplan", "scope"): "with a gateway, global",
    ("netplan", "type"): "unicast",
    ("netplan", "version"): "2",
    ("nmstate", "state"): "up",
    ("nmstate", "table-id"): "0",
    ("nmstate", "metric"): "-1",
    ("nmstate", "source"): "that of the first of several next hops",
    ("nmstate", "type"): "ethernet",
    ("nmstate", "enabled"): "true",
    ("nmstate", "family"): "that of an address",
    ("networkd", "Family"): "that of an address",
    ("networkd", "Type"): "unicast",
}


LEFT_OUT = {"absent", "linux-bridge", "vlans", "running", "nameservers", "dns-resolver", "linkinfo", "via"}


def outcome(notation: str, file: Path) -> tuple[int, str, list[str]]:
    """Return what an import says, without the lines: a key that is gone moves them."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["import", "--sandbox", "a", "--netns", "a", "--from", notation, str(file)])
    lines = [line.removeprefix(f"{file}:").partition(": ")[2] for line in err.getvalue().splitlines()]
    return code, out.getvalue(), lines


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each mapping in plain data."""
    if isinstance(value, dict):
        yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*path, key))


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize("notation", ["ip", "netplan", "nmstate"])
def test_each_key_of_data(notation: str, tmp_path: Path) -> None:
    (data,) = compose(SAMPLES[notation])
    file = tmp_path / "file"
    file.write_text(json.dumps(data))
    usual = outcome(notation, file)
    assert usual[0] == 0, usual
    silent, unknown = set(), []
    for path in places(data):
        for key in list(at(data, path)):
            changed = copy.deepcopy(data)
            del at(changed, path)[key]
            file.write_text(json.dumps(changed))
            if outcome(notation, file) == usual and not is_left_out(at(data, path), path):
                silent.add((notation, key))
        changed = copy.deepcopy(data)
        at(changed, path)["surprise"] = 1
        file.write_text(json.dumps(changed))
        if not any("surprise" in line for line in outcome(notation, file)[2]):
            unknown.append(path)
    assert silent - REDUNDANT.keys() == set()
    # What is left out as a whole has one line.
    assert [path for path in unknown if not is_left_out(at(data, path), path)] == []


def is_left_out(item: Any, path: tuple[str | int, ...]) -> bool:
    return bool(LEFT_OUT & {str(item.get("state")), str(item.get("type")), *path})


def test_each_setting_of_networkd(tmp_path: Path) -> None:
    lines = SAMPLES["networkd"].splitlines()
    file = tmp_path / "a.network"
    file.write_text("\n".join(lines))
    usual = outcome("networkd", file)
    assert usual[0] == 0, usual
    silent = set()
    for number, line in enumerate(lines):
        # A comment in its place leaves the other lines where they are.
        file.write_text("\n".join([*lines[:number], "#", *lines[number + 1 :]]))
        if outcome("networkd", file) == usual:
            silent.add(("networkd", line.partition("=")[0]))
        if line.startswith("["):
            file.write_text("\n".join([*lines[:number], f"{line}\nSurprise=1", *lines[number + 1 :]]))
            assert any("Surprise" in each for each in outcome("networkd", file)[2]), line
    assert silent - REDUNDANT.keys() == set()
