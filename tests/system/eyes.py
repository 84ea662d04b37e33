"""What a manifest asks for, and what `ip`, `sysctl` and `ipvsadm` report, in the same words.

It knows manifests as a reader does, from the YAML alone: no code of ours takes part.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

# Runs a command within a sandbox; returns its output.
Run = Callable[..., str]
_TYPES = {"1": "unicast", "2": "local", "5": "multicast", "6": "blackhole", "7": "unreachable", "8": "prohibit"}
_TYPES["9"] = "throw"
_SCOPES = {"0": "global", "200": "site", "253": "link", "254": "host"}
_LEADING = {"unicast", "local", "multicast"}
# Metrics of a route but for what a listing calls otherwise.
_METRICS = ("mtu", "advmss", "window", "hoplimit", "initcwnd", "initrwnd", "quickack")
_LETTERS = {"nat": "-m", "dr": "-g", "tunnel": "-i"}
_SERVICES = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service", "fwmark": "-f"}


def wanted(document: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest asks for, section by section; a section that is absent is absent."""
    found: dict[str, Any] = {"sysctls": _wanted_sysctls(document)}
    if "interfaces" in document:
        nics = document["interfaces"]
        found["links"] = {
            nic["name"]: (*map(nic.get, ("hwAddr", "mtu", "master")), nic.get("state", "up")) for nic in nics
        }
        found["addresses"] = sorted((nic["name"], _address(each)) for nic in nics for each in nic.get("addresses", []))
    if "neighbours" in document:
        found["neighbours"] = sorted(
            (each["device"], each["address"], each.get("hwAddr", "proxy"), each.get("router", False))
            for each in document["neighbours"]
        )
    if "routes" in document:
        found["routes"] = sorted((_wanted_route(each) for each in document["routes"]), key=str)
    if "rules" in document:
        found["rules"] = sorted(_wanted_rule(each) for each in document["rules"])
    if "ipvs" in document:
        found["ipvs"] = _wanted_ipvs(document["ipvs"])
    return found


def seen(run: Run, document: dict[str, Any]) -> dict[str, Any]:
    """Return what other programs report of a sandbox, as far as the manifest speaks of it."""
    # Two sections are of one listing.
    run = cache(run)
    names = [name for name, _ in _wanted_sysctls(document)]
    readers: dict[str, Callable[[], Any]] = {
        "sysctls": lambda: list(zip(names, run("sysctl", "-n", *names).split(), strict=True)) if names else [],
        "links": lambda: _seen_links(run, document),
        "addresses": lambda: _seen_addresses(run),
        "neighbours": lambda: _seen_neighbours(run),
        "routes": lambda: sorted(
            (_seen_route(each) for each in _both(run, "-d", "-N", "route", "show", "table", "all", "proto", "200")),
            key=str,
        ),
        "rules": lambda: sorted(
            _seen_rule(each) for each in _both(run, "-d", "-N", "rule") if each["protocol"] == "200"
        ),
        "ipvs": lambda: sorted(line.strip() for line in run("ipvsadm", "-Sn").splitlines()),
    }
    return {name: readers[name]() for name in wanted(document)}


def _links(run: Run) -> list[dict[str, Any]]:
    return [each for each in json.loads(run("ip", "-d", "-j", "address")) if each["ifname"] != "lo"]


def _seen_links(run: Run, document: dict[str, Any]) -> dict[str, Any]:
    """Return the links, as far as the manifest speaks of each."""
    fields = {nic["name"]: nic.keys() for nic in document["interfaces"]}
    return {
        each["ifname"]: (
            *(
                value if field in fields.get(each["ifname"], ()) else None
                for field, value in (("hwAddr", _own_mac(each)), ("mtu", each["mtu"]), ("master", each.get("master")))
            ),
            "up" if "UP" in each["flags"] else "down",
        )
        for each in _links(run)
        if "UP" in each["flags"] or each["ifname"] in fields
    }


def _own_mac(link: dict[str, Any]) -> str:
    """Return the address of a link; a port of a bond has that of the bond for as long as it is one."""
    own: str = link.get("linkinfo", {}).get("info_slave_data", {}).get("perm_hwaddr", link["address"])
    return own


def _both(run: Run, *words: str) -> list[dict[str, Any]]:
    """Return what `ip` lists of both families."""
    return [each for family in ("-4", "-6") for each in json.loads(run("ip", family, "-j", *words) or "[]")]


def _seen_addresses(run: Run) -> list[tuple[str, str]]:
    return sorted(
        (
            link["ifname"],
            f"{each['local']}{' peer ' * ('address' in each)}{each.get('address', '')}/{each['prefixlen']}",
        )
        for link in _links(run)
        for each in link["addr_info"]
        if not each["local"].startswith("fe80:")
    )


def _seen_neighbours(run: Run) -> list[tuple[Any, ...]]:
    entries = [*_both(run, "neighbour", "show", "nud", "permanent"), *_both(run, "neighbour", "show", "proxy")]
    return sorted((each["dev"], each["dst"], each.get("lladdr", "proxy"), "router" in each) for each in entries)


def _address(given: Any) -> str:
    given = given if isinstance(given, dict) else {"address": given}
    return " peer ".join(str(given[each]) for each in ("address", "peer") if each in given)


def _wanted_sysctls(document: dict[str, Any]) -> list[tuple[str, str]]:
    found = [(name, str(value)) for name, value in document.get("sysctls", {}).items()]
    for name, value in document.get("ipvs", {}).get("sysctls", {}).items():
        found.append((f"net.ipv4.vs.{name}", str(value)))
    for nic in document.get("interfaces", []):
        for name, value in nic.get("sysctls", {}).items():
            family, dot, rest = name.partition(".")
            if not dot:
                family, rest = ("ipv6" if name in {"accept_ra", "proxy_ndp"} else "ipv4"), name
            found.append((f"net.{family}.conf.{nic['name']}.{rest}", str(value)))
    return found


def _wanted_route(route: dict[str, Any]) -> tuple[Any, ...]:
    hops = route.get("nexthops", [route])
    gateway6 = any(":" in hop.get("gateway", "") for hop in hops)
    inet6 = ":" in str(route["dest"]) or (route["dest"] == "default" and gateway6)
    kind = route.get("type", "unicast")
    direct = kind in {"unicast", "multicast"} and not any(hop.get("gateway") for hop in hops)
    usual = "global" if inet6 else {"local": "host"}.get(kind, "link" if direct else "global")
    metrics = {name: int(route[name]) for name in _METRICS if name in route}
    metrics |= {"rto_min": route["rtoMin"]} if "rtoMin" in route else {}
    metrics |= {"congestion": route["congctl"]} if "congctl" in route else {}
    metrics |= dict.fromkeys(route.get("features", ()))
    gateways = [(hop.get("gateway", ""), hop.get("device", ""), hop.get("weight", 1)) for hop in hops]
    return (
        route["dest"],
        str(route.get("table", 254)),
        route.get("metric", 0) or (1024 if inet6 else 0),
        route.get("type", "unicast"),
        sorted(gateways),
        route.get("source", ""),
        metrics,
        (route.get("scope", usual), route.get("pref", "medium"), route.get("tos", 0)),
        route.get("onLink", False),
    )


def _gateway(hop: dict[str, Any]) -> str:
    return str(hop.get("gateway") or hop.get("via", {}).get("host", ""))


def _seen_route(route: dict[str, Any]) -> tuple[Any, ...]:
    hops = route.get("nexthops", [route])
    kind = _TYPES[route["type"]]
    inet6 = ":" in route["dst"] or "pref" in route
    # Routes to nowhere have `lo` as their device in IPv6.
    gateways = [(_gateway(hop), hop.get("dev", "") if kind in _LEADING else "", hop.get("weight", 1)) for hop in hops]
    metrics = {name: value for each in route.get("metrics", []) for name, value in each.items()}
    return (
        route["dst"],
        str(route.get("table", 254)),
        route.get("metric", 1024 if inet6 else 0),
        kind,
        sorted(gateways),
        route.get("prefsrc", ""),
        metrics,
        (
            _SCOPES[route.get("scope", "0")],
            {"0": "medium", "1": "high", "3": "low"}.get(route.get("pref", "medium"), route.get("pref", "medium")),
            int(route.get("tos", "0"), 0),
        ),
        any("onlink" in each for each in (route.get("flags", []), *(hop.get("flags", []) for hop in hops))),
    )


def _wanted_rule(rule: dict[str, Any]) -> tuple[Any, ...]:
    goal = next(f"{name} {rule[name]}" for name in ("table", "goto", "action", "l3mdev") if name in rule)
    return (rule["priority"], rule.get("from", "all"), rule.get("to", "all"), "invert" in rule, goal)


def _seen_rule(rule: dict[str, Any]) -> tuple[Any, ...]:
    to = f"{rule['dst']}/{rule['dstlen']}" if "dst" in rule else "all"
    if "action" in rule:
        goal = f"action {_TYPES[rule['action']]}"
    elif "l3mdev" in rule:
        goal = "l3mdev True"
    else:
        goal = f"goto {rule['goto']}" if "goto" in rule else f"table {rule['table']}"
    return (rule["priority"], rule["src"], to, "not" in rule, goal)


def _wanted_ipvs(ipvs: dict[str, Any]) -> list[str]:
    """Return the lines of `ipvsadm -Sn`, which prints no thresholds."""
    if "rules" in ipvs:
        return sorted(ipvs["rules"].splitlines())
    lines = []
    for service in ipvs["services"]:
        (kind,) = service.keys() & _SERVICES
        name = f"{_SERVICES[kind]} {service[kind]}" + (" -6" if service.get("family") == "ipv6" else "")
        options = f" -p {service['persistent']}" if "persistent" in service else ""
        options += f" -M {service['netmask']}" if "netmask" in service else ""
        options += f" -b {','.join(service['schedulerFlags'])}" if "schedulerFlags" in service else ""
        options += f" --pe {service['persistenceEngine']}" if "persistenceEngine" in service else ""
        options += " -o" if service.get("onePacket") else ""
        lines.append(f"-A {name} -s {service['scheduler']}{options}")
        lines += [f"-a {name} -r {_server(service, kind, each)}" for each in service["servers"]]
    return sorted(lines)


def _server(service: dict[str, Any], kind: str, server: dict[str, Any]) -> str:
    address = server["address"]
    port = "0" if kind == "fwmark" else str(service[kind]).rpartition(":")[2]
    if address.startswith("2001:"):
        address = f"[{address}]:{port}"
    elif ":" not in address:
        address = f"{address}:{port}"
    words = [address, _LETTERS[server.get("forward", "nat")], "-w", str(server.get("weight", 1))]
    if server.get("forward") == "tunnel":
        kind = server.get("tunType", "ipip")
        words += ["--tun-type", kind]
        words += ["--tun-port", str(server["tunPort"])] if kind == "gue" else []
        words += [f"--tun-{server.get('tunChecksum', 'nocsum')}"] if kind != "ipip" else []
    return " ".join(words)
