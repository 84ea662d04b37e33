"""Warnings about manifests that are valid and can be applied, but will hardly carry a packet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter

from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.service import name
from reconciler.model.address import is_ipv6, is_loopback, is_unicast
from reconciler.model.ipvs import FALLBACK_FLAGS, FWMARK, Ipvs, Service
from reconciler.model.sandbox import Sandbox, Surroundings
from reconciler.model.sysctl import IP_FORWARD, IP_FORWARD6
from reconciler.wording import plural

# Warnings of one kind to show: thousands of services may have the same problem.
SHOWN = 5

_Look = Callable[[Service, Path], Finding | None]

_WEIGHT, _FORWARD, _ADDRESS = attrgetter("weight"), attrgetter("forward"), attrgetter("address")


def warnings(sandbox: Sandbox, around: Surroundings) -> list[Finding]:
    """Return the warnings about a manifest: the first SHOWN of each kind, and in the last one the number of the others.

    `around` is what was observed where the manifest is to be applied; its defaults if nothing was observed.
    """
    ipvs = sandbox.ipvs
    if ipvs is None:
        return []
    found = [*_drain(ipvs), *_surroundings(sandbox, ipvs, around)]
    looks: list[_Look] = [_no_servers, _no_weight, _own_server, _no_unicast, _no_sip, _loopback_server, _one_packet]
    looks += [_refused] + [_undrained] * bool(ipvs.drain)
    own = frozenset(each.host for interface in sandbox.interfaces or () for each in interface.addresses)
    if sandbox.interfaces or around.local is not None:
        looks.append(partial(_not_local, own | (around.local or frozenset()), seen=around.local is not None))
    for look in looks:
        found += _few(ipvs, look)
    return found


def _few(ipvs: Ipvs, look: _Look) -> list[Finding]:
    services = enumerate(ipvs.services or ())
    findings = [each for index, service in services if (each := look(service, ("ipvs", "services", index)))]
    shown = findings[:SHOWN]
    left = len(findings) - len(shown)
    if left:
        last = shown.pop()
        shown.append(
            last._replace(message=f"{last.message} (the same is true of {left:,} more {plural('service', left)})")
        )
    return shown


def _drain(ipvs: Ipvs) -> Iterator[Finding]:
    stays = ipvs.drain and dict(ipvs.sysctls).get("expire_quiescent_template") != 1
    if stays and any(service.persistent for service in ipvs.services or ()):
        message = "clients of a persistent service keep returning to a server that drains"
        yield Finding(("ipvs", "drain"), f"{message}; sysctls: {{expire_quiescent_template: 1}} prevents that")


def _surroundings(sandbox: Sandbox, ipvs: Ipvs, around: Surroundings) -> Iterator[Finding]:
    servers = [server for service in ipvs.services or () for server in service.servers]
    where = ("ipvs", "services")
    # What has an address of the sandbox answers from within.
    local = around.local or ()
    away = {is_ipv6(each.address) for each in servers if each.forward == "nat" and each.address not in local}
    declared = dict(sandbox.sysctls or ())
    for kind, setting, found in (("IPv4", IP_FORWARD, around.forwarding), ("IPv6", IP_FORWARD6, around.forwarding6)):
        if (kind == "IPv6") in away and not declared.get(setting, found):
            message = f"{setting} is 0 there: answers of {kind} nat servers do not reach their clients"
            yield Finding(where, f"{message}; sysctls: {{{setting}: 1}}")
    if around.local is not None and all(map(is_ipv6, around.local)) and not all(is_ipv6(s.address) for s in servers):
        message = "the sandbox has no IPv4 address, not even 127.0.0.1 of lo"
        yield Finding(where, f"{message}: its kernel refuses IPv4 servers (Invalid argument); bring lo up")


def _no_servers(service: Service, path: Path) -> Finding | None:
    if service.servers:
        return None
    return Finding((*path, service.protocol), f"{name(service)} has no servers; its packets are rejected")


def _no_weight(service: Service, path: Path) -> Finding | None:
    if not service.servers or any(map(_WEIGHT, service.servers)) or "weight" in service.ignore:
        return None
    return Finding((*path, "servers"), f"all weights of {name(service)} are 0; new connections get no server")


def _own_server(service: Service, path: Path) -> Finding | None:
    if service.protocol == FWMARK or service.address not in map(_ADDRESS, service.servers):
        return None
    for index, server in enumerate(service.servers):
        if server.address == service.address and server.forward == "nat":
            message = f"{server.address} is the address of the service itself; its connections stay in the sandbox"
            return Finding((*path, "servers", index, "address"), message)
    return None


def _no_unicast(service: Service, path: Path) -> Finding | None:
    if service.protocol == FWMARK or is_unicast(service.address):
        return None
    return Finding((*path, service.protocol), f"{service.address} is not a unicast address; IPVS gets no packet for it")


def _no_sip(service: Service, path: Path) -> Finding | None:
    if service.persistence_engine is None or service.protocol in ("udp", FWMARK):
        return None
    return Finding(
        (*path, "persistenceEngine"), f"sip is for UDP; the packets of a {service.protocol} service are dropped"
    )


def _not_local(own: frozenset[str], service: Service, path: Path, *, seen: bool) -> Finding | None:
    if service.protocol == FWMARK or service.address in own or "nat" not in map(_FORWARD, service.servers):
        return None
    if is_loopback(service.address):
        return None
    whose = "of the sandbox" if seen else "of these interfaces; if the sandbox does not have it"
    message = f"{service.address} is not an address {whose}{':' if seen else ','} nat gets no packet"
    return Finding((*path, service.protocol), message)


def _loopback_server(service: Service, path: Path) -> Finding | None:
    if is_loopback(service.address):
        return None
    for index, server in enumerate(service.servers):
        if server.forward == "nat" and is_loopback(server.address):
            message = f"the kernel drops packets of other hosts that nat sends to {server.address}, a loopback address"
            return Finding((*path, "servers", index, "address"), f"{message}; use another address of the sandbox")
    return None


def _one_packet(service: Service, path: Path) -> Finding | None:
    if not service.one_packet or "nat" not in map(_FORWARD, service.servers):
        return None
    message = "answers of nat servers come from the address of the server, not of the service, so clients ignore them"
    return Finding((*path, "onePacket"), f"{message}; use dr or tunnel, or no one-packet scheduling")


def _refused(service: Service, path: Path) -> Finding | None:
    """Find servers whose clients the scheduler refuses, although other servers could take them."""
    if not service.refuses or len(service.servers) < 2:
        return None
    fallback = FALLBACK_FLAGS[service.scheduler]
    other = f"schedulerFlags: [{fallback}] sends" if fallback else "other schedulers send"
    advice = f"; {other} them to another server"
    words = f"{service.scheduler} refuses the clients of a server"
    quiet = [index for index, server in enumerate(service.servers) if not server.weight]
    if "weight" in service.ignore:
        return Finding((*path, "ignore"), f"{words} whose weight another program sets to 0{advice}")
    if quiet and len(quiet) < len(service.servers):
        # A server that was added with weight 0 has no place in the table of mh (ip_vs_mh.c: last_weight).
        once = " that had one before" if service.scheduler == "mh" else ""
        return Finding((*path, "servers", quiet[0], "weight"), f"{words} of weight 0{once}{advice}")
    for index, server in enumerate(service.servers):
        if server.upper_threshold:
            where = (*path, "servers", index, "upperThreshold")
            return Finding(where, f"{words} that has reached its upper threshold{advice}")
    return None


def _undrained(service: Service, path: Path) -> Finding | None:
    if service.can_drain:
        return None
    message = f"{service.scheduler} refuses the clients of a server that drains, so its servers are deleted at once"
    return Finding((*path, "scheduler"), f"{message}, with their connections; mh, sh and lblc can drain")
