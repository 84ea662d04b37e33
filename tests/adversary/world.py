"""A sandbox whose manifest uses every field that a namespace and a machine have in common."""

from __future__ import annotations

from typing import Any

from tests.system.box import MACS

ETH0, ETH1, ETH2 = "eth0", "eth1", "eth2"


def sections(first: str, second: str, third: str, fourth: str) -> dict[str, Any]:
    """Return the sections of the manifest with these devices; links of the kinds that each host has are made there."""
    return {
        "interfaces": [
            {
                "name": ETH0,
                "device": first,
                "hwAddr": MACS[0],
                "mtu": 1450,
                "alias": "uplink to rack 7",
                "altnames": ["uplink", "rack-7"],
                "txQueueLen": 900,
                "gsoMaxSize": 60000,
                "arp": True,
                "allmulticast": False,
                "addresses": [
                    "192.0.2.2/24",
                    "192.0.2.3/24",
                    "198.51.100.2/32",
                    "2001:db8:1::2/64",
                    {"address": "2001:db8:1::3/64", "dad": False},
                    {"address": "192.0.2.130/27", "label": f"{ETH0}:web", "metric": 50, "scope": "link"},
                    {"address": "192.0.2.162/27", "noprefixroute": True},
                    {"address": "2001:db8:5::2/64", "metric": 70},
                    {"address": "2001:db8:6::2/64", "noprefixroute": True},
                    {"address": "198.51.100.10", "peer": "198.18.0.9/32"},
                    {"address": "2001:db8:7::2", "peer": "2001:db8:7::9/64"},
                ],
            },
            {
                "name": ETH1,
                "device": second,
                "hwAddr": MACS[1],
                "mtu": 1500,
                "addresses": ["203.0.113.2/25", "2001:db8:2::2/64"],
            },
            {
                "name": ETH2,
                "device": fourth,
                "hwAddr": MACS[5],
                "mtu": 1500,
                "state": "down",
                "addresses": [
                    "172.29.0.2/24",
                    {"address": "198.51.100.20", "peer": "198.18.0.20/32"},
                    {"address": "2001:db8:29::2/64", "dad": False},
                    {"address": "2001:db8:28::2", "peer": "2001:db8:28::9/64", "dad": False},
                ],
            },
            {"name": "port0", "device": third, "hwAddr": MACS[2], "mtu": 1500, "master": "br0"},
            {
                "name": "br0",
                "bridge": {"ageingTime": 60, "forwardDelay": 4, "multicastSnooping": False},
                "hwAddr": MACS[3],
                "mtu": 1500,
                "addresses": ["172.30.0.2/24", "2001:db8:30::2/64"],
            },
            {
                "name": "mv0",
                "macvlan": {"link": ETH1, "mode": "private"},
                "hwAddr": MACS[4],
                "mtu": 1500,
                "addresses": ["172.31.0.2/24"],
            },
        ],
        "neighbours": [
            {"address": "192.0.2.9", "device": ETH0, "hwAddr": MACS[8]},
            {"address": "2001:db8:1::9", "device": ETH0, "hwAddr": MACS[8], "router": True},
            {"address": "192.0.2.77", "device": ETH0, "proxy": True},
        ],
        "routes": [
            {"dest": "default", "gateway": "192.0.2.1", "device": ETH0},
            {"dest": "default", "gateway": "2001:db8:1::1", "device": ETH0},
            _TUNED | {"dest": "10.0.0.0/8", "gateway": "192.0.2.1", "source": "192.0.2.3", "advmss": 1360},
            {"dest": "10.1.0.0/16", "nexthops": _hops("192.0.2.1", "203.0.113.1")},
            {"dest": "10.2.0.0/16", "gateway": "198.18.0.1", "device": ETH0, "onLink": True},
            {"dest": "10.3.0.0/16", "device": ETH0},
            _TUNED_TCP | {"dest": "10.20.0.0/16", "gateway": "2001:db8:1::1", "features": ["ecn"], "tos": 16},
            {"dest": "10.21.0.0/16", "device": ETH0, "scope": "host"},
            {"dest": "10.22.0.0/16", "device": "lo", "type": "local", "table": 100},
            {"dest": "239.1.0.0/16", "device": ETH0, "type": "multicast"},
            _TUNED_TCP | {"dest": "2001:db8:20::/48", "gateway": "2001:db8:1::1", "pref": "high"},
            {"dest": "2001:db8:22::/48", "device": "lo", "type": "local", "table": 255},
            {"dest": "default", "gateway": "192.0.2.1", "device": ETH0, "table": 100},
            *({"dest": f"10.{4 + n}.0.0/16", "type": kind} for n, kind in enumerate(_REJECTING)),
            _TUNED
            | {"dest": "2001:db8:10::/48", "gateway": "2001:db8:1::1", "source": "2001:db8:1::3", "advmss": 1340},
            {"dest": "2001:db8:11::/48", "nexthops": _hops("2001:db8:1::1", "2001:db8:2::1")},
            {"dest": "2001:db8:13::/48", "device": ETH0},
            {"dest": "2001:db8:14::/48", "type": "unreachable"},
            {"dest": "10.30.0.0/16", "gateway": "172.30.0.1", "device": "br0"},
            {"dest": "2001:db8:31::/48", "gateway": "2001:db8:30::1", "device": "br0"},
            {"dest": "10.31.0.0/16", "gateway": "172.31.0.1", "device": "mv0"},
        ],
        "rules": [
            {"priority": 100, "from": "10.9.0.0/16", "table": 100},
            {"priority": 110, "to": "10.10.0.0/16", "fwmark": "0x5/0xff", "tos": 16, "table": 100},
            {"priority": 120, "iif": ETH0, "ipproto": "tcp", "sport": 80, "dport": "1000-2000", "table": 100},
            {"priority": 130, "oif": ETH1, "uidrange": "5-9", "action": "prohibit"},
            {"priority": 140, "invert": True, "from": "10.0.0.0/8", "goto": 150},
            {"priority": 150, "table": 254, "suppressPrefixlength": 0},
            {"priority": 160, "family": "ipv6", "from": "2001:db8:9::/48", "table": 254},
        ],
    }


_TUNED = {"device": ETH0, "metric": 100, "mtu": 1400}
_REJECTING = ("blackhole", "unreachable", "prohibit", "throw")
_TUNED_TCP = {
    "device": ETH0,
    "mtu": 1400,
    "mtuLock": True,
    "window": 9000,
    "hoplimit": 33,
    "initcwnd": 20,
    "initrwnd": 30,
    "rtoMin": 40,
    "quickack": True,
    "congctl": "cubic",
}


def _hops(first: str, second: str) -> list[dict[str, Any]]:
    return [
        {"device": ETH0, "gateway": first, "weight": 2},
        {"device": ETH1, "gateway": second, "weight": 3},
    ]
