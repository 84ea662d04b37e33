"""What a kernel has, read by `ip -d -j` and `ipvsadm` alone: no byte here was decoded by our own code.

Each reader returns the one object of its kind that is there, as a mapping of the fields of the model. What `ip` leaves
out because it is the kernel's default has the model's default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
Data = dict[str, Any]
Run = Callable[..., str]
# ip(8) names a protocol as /etc/protocols does; a host without that file has the number: ipproto-17.
_IP_PROTOCOLS = {"tcp": 6, "udp": 17}
_OURS = "200"
# Types of routes that lead to a device.
_LEADING = {"unicast", "local", "multicast"}
_SERVICE_OPTIONS = {"-t": "tcp", "-u": "udp", "--sctp-service": "sctp"}
_FORWARDS = {"-m": "nat", "-g": "dr", "-i": "tunnel"}
_CHECKSUMS = {"--tun-nocsum": "none", "--tun-csum": "csum", "--tun-remcsum": "remcsum"}


def one(found: list[T]) -> T:
    (only,) = found
    return only


def links(ip: Run) -> list[Data]:
    """Read the NICs but for `lo`, without what only the host's side tells."""
    return [
        {
            "name": link["ifname"],
            "hw_addr": link["address"],
            "mtu": link["mtu"],
            "up": "UP" in link["flags"],
            "altnames": sorted(link.get("altnames", ())),
            "attributes": {name: link[name] for name in ("txqlen", "gso_max_size")}
            # What a device was on the host is no alias of a manifest.
            | {"ifalias": re.sub("^reconciler: .*", "", link.get("ifalias", ""))}
            | {flag: flag in link["flags"] for flag in ("NOARP", "ALLMULTI")},
            "addresses": sorted(
                (f"{each['local']}/{each['prefixlen']}", not each.get("nodad"))
                for each in link["addr_info"]
                if each["scope"] != "link"
            ),
        }
        for link in json.loads(ip("-d", "-j", "address"))
        if link["ifname"] != "lo"
    ]


def addresses(ip: Run) -> list[Data]:
    """Read the addresses of the NICs but for `lo` and link-local ones, each with its connected routes."""
    listed = [
        route
        for family in ("-4", "-6")
        for route in json.loads(ip("-d", "-j", family, "route", "show", "table", "main", "proto", "kernel"))
        if route["dst"] != "fe80::/64"
    ]
    return [
        {
            "address": f"{each['local']}/{each['prefixlen']}",
            "peer": each.get("address"),
            "dad": not each.get("nodad"),
            "label": each.get("label"),
            "scope": each["scope"],
            "metric": each.get("metric", 0),
            "noprefixroute": each.get("noprefixroute", False),
            "connected": [(route["dst"], route.get("metric", 0)) for route in listed],
        }
        for link in json.loads(ip("-d", "-j", "address"))
        for each in link["addr_info"]
        if link["ifname"] != "lo" and not each["local"].startswith("fe80:")
    ]


def routes(ip: Run) -> list[Data]:
    """Read the routes of our protocol."""
    found = []
    for family, full in (("-4", 32), ("-6", 128)):
        # Only the text tells what is locked.
        text = ip("-d", family, "route", "show", "table", "all", "proto", _OURS)
        for route in json.loads(ip("-d", "-j", family, "route", "show", "table", "all", "proto", _OURS)):
            metrics = one(route.get("metrics", [{}]))
            dest = route["dst"] if "/" in route["dst"] else f"{route['dst']}/{full}"
            # The kernel puts IPv6 routes that lead nowhere on `lo`.
            hops = route.get("nexthops", [route] if "dev" in route and route["type"] in _LEADING else [])
            found.append(
                {
                    "dest": dest,
                    "type": route["type"],
                    "nexthops": sorted(map(_hop, hops), key=json.dumps),
                    "table": {"main": 254, "local": 255}.get(route.get("table", "main")) or int(route["table"]),
                    "metric": route.get("metric", 0),
                    "source": route.get("prefsrc"),
                    "mtu": metrics.get("mtu", 0),
                    "mtu_lock": "mtu lock" in text,
                    "metrics": {name: value for name, value in metrics.items() if name != "mtu"},
                    "locked": [name for name in metrics if f"{name} lock" in text and name != "mtu"],
                    "scope": route["scope"],
                    "pref": route.get("pref", "medium"),
                    "tos": int(route.get("tos", "0"), 0),
                }
            )
    return found


def _hop(hop: Data) -> Data:
    return {
        "device": hop["dev"],
        "gateway": hop.get("gateway", hop.get("via", {}).get("host")),
        "weight": hop.get("weight", 1),
        "on_link": "onlink" in hop["flags"],
    }


def rules(ip: Run) -> list[Data]:
    """Read the rules of our protocol."""
    return [
        _rule(rule) | {"family": name}
        for family, name in (("-4", "ipv4"), ("-6", "ipv6"))
        for rule in json.loads(ip("-d", "-j", family, "rule", "show"))
        if rule["protocol"] == _OURS
    ]


def _rule(rule: Data) -> Data:
    action = "goto" if "goto" in rule else rule.get("action", "table")
    proto = rule.get("ipproto", "ipproto-0")
    return {
        "priority": rule["priority"],
        "from_": _network(rule, "src"),
        "to": _network(rule, "dst"),
        "iif": rule.get("iif"),
        "oif": rule.get("oif"),
        "fwmark": int(rule.get("fwmark", "0"), 0),
        "fwmask": int(rule.get("fwmask", "0xffffffff" if "fwmark" in rule else "0"), 0),
        "ipproto": _IP_PROTOCOLS.get(proto) or int(proto.removeprefix("ipproto-")),
        "sport": _range(rule, "sport"),
        "dport": _range(rule, "dport"),
        "uidrange": (rule["uid_start"], rule["uid_end"]) if "uid_start" in rule else None,
        "tos": int(rule.get("tos", "0"), 0),
        "suppress_prefixlength": rule.get("suppress_prefixlen", -1),
        "l3mdev": "l3mdev" in rule,
        "invert": "not" in rule,
        "action": action,
        "table": int(rule.get("table", 0)),
        "goto": rule.get("goto", 0),
    }


def _network(rule: Data, end: str) -> str | None:
    text = rule.get(end, "all")
    return None if text == "all" else f"{text}/{rule[f'{end}len']}"


def _range(rule: Data, end: str) -> tuple[int, int] | None:
    if end in rule:
        return rule[end], rule[end]
    return (rule[f"{end}_start"], rule[f"{end}_end"]) if f"{end}_start" in rule else None


def neighbours(ip: Run) -> list[Data]:
    """Read the static neighbours, and those that are proxied."""
    found = [
        *json.loads(ip("-d", "-j", "neighbour", "show", "nud", "permanent")),
        *json.loads(ip("-d", "-j", "neighbour", "show", "proxy")),
    ]
    return [
        {
            "address": each["dst"],
            "device": each["dev"],
            "hw_addr": each.get("lladdr", ""),
            "proxy": "proxy" in each,
            "router": "router" in each,
        }
        for each in found
        if each.get("protocol") == _OURS
    ]


def services(output: Run) -> list[Data]:
    """Read the table as `ipvsadm` saves it, without thresholds."""
    found: list[Data] = []
    for line in output("ipvsadm", "-Sn").splitlines():
        verb, *words = line.split()
        if verb == "-A":
            found.append(_service(iter(words)))
        else:
            found[-1]["servers"].append(_server(iter(words)))
    return found


def with_thresholds(found: list[Data], output: Run) -> list[Data]:
    """Add to services the thresholds of their servers, which only the listing of `ipvsadm` has."""
    listed = [line.split() for line in output("ipvsadm", "-Ln", "--thresholds").splitlines() if "->" in line][1:]
    thresholds = {words[1]: (int(words[2]), int(words[3])) for words in listed}
    for service in found:
        for server in service["servers"]:
            upper, lower = thresholds[f"{server['address']}:{server['port']}"]
            server |= {"upper_threshold": upper, "lower_threshold": lower}
    return found


def _service(words: Iterator[str]) -> Data:
    found: Data = {"scheduler_flags": (), "persistent": 0, "netmask": None, "persistence_engine": None}
    found |= {"one_packet": False, "servers": []}
    for word in words:
        match word:
            case "-t" | "-u" | "--sctp-service":
                address, _, port = next(words).rpartition(":")
                found |= {"protocol": _SERVICE_OPTIONS[word], "address": address, "port": int(port)}
            case "-s":
                found["scheduler"] = next(words)
            case "-p":
                found["persistent"] = int(next(words))
            case "-M":
                found["netmask"] = next(words)
            case "-b":
                found["scheduler_flags"] = tuple(next(words).split(","))
            case "--pe":
                found["persistence_engine"] = next(words)
            case "-o":
                found["one_packet"] = True
            case _:
                raise ValueError(word)
    return found


def _server(words: Iterator[str]) -> Data:
    found: Data = {"tun_type": "ipip", "tun_port": 0, "tun_checksum": "none"}
    for word in words:
        match word:
            case "-t" | "-u" | "--sctp-service":
                next(words)
            case "-r":
                address, _, port = next(words).rpartition(":")
                found |= {"address": address, "port": int(port)}
            case "-m" | "-g" | "-i":
                found["forward"] = _FORWARDS[word]
            case "-w":
                found["weight"] = int(next(words))
            case "--tun-type":
                found["tun_type"] = next(words)
            case "--tun-port":
                found["tun_port"] = int(next(words))
            case "--tun-nocsum" | "--tun-csum" | "--tun-remcsum":
                found["tun_checksum"] = _CHECKSUMS[word]
            case _:
                raise ValueError(word)
    return found


def timeouts(output: Run) -> Data:
    """Read the timeouts."""
    numbers = output("ipvsadm", "-L", "--timeout").split()[-3:]
    return dict(zip(("tcp", "tcpfin", "udp"), map(int, numbers), strict=True))


def network_sysctls(output: Run, names: dict[str, str]) -> dict[str, int]:
    """Read sysctls of the network by `sysctl`: name in the manifest → name for it."""
    values = output("sysctl", "-n", *names.values()).split()
    return dict(zip(names, map(int, values), strict=True))


def sysctls(output: Run) -> dict[str, int]:
    """Read two settings: the one that rows change, and another one."""
    names = ("conntrack", "sloppy_tcp")
    return {name: int(output("cat", f"/proc/sys/net/ipv4/vs/{name}")) for name in names}
