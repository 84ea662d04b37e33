"""Services and servers → rules, and the options of commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.formats.ipvsadm.words import CHECKSUM_OPTIONS, FORWARD_OPTIONS, SERVICE_OPTIONS, TYPES_WITH_CHECKSUM
from reconciler.model.address import is_ipv6
from reconciler.model.ipvs import FWMARK, TYPE_WITH_PORT, Server, ServerKey, Service, ServiceKey


def save_rules(services: Iterable[Service]) -> Iterator[str]:
    """Yield services as `ipvsadm -Sn` writes them: a line for each service and for each server, in their order.

    Unlike `ipvsadm -Sn`, write thresholds, the third flag of `sh` and `mh`, and marks above 2^31 correctly.
    """
    for service in services:
        yield f"-A {service_options(service)}"
        key = service_key_options(service.key)
        for server in service.servers:
            yield f"-a {key} {server_options(server)}"


def service_options(service: Service) -> str:
    """Write a service without its servers: `-t 172.17.0.7:80 -s rr -p 3000`."""
    words = [service_key_options(service.key), f"-s {service.scheduler}"]
    if service.persistent:
        words.append(f"-p {service.persistent}")
    if service.netmask:
        words.append(f"-M {service.netmask}")
    if service.persistence_engine:
        words.append(f"--pe {service.persistence_engine}")
    if service.one_packet:
        words.append("-o")
    if service.scheduler_flags:
        words.append(f"-b {','.join(service.scheduler_flags)}")
    return " ".join(words)


def service_key_options(key: ServiceKey) -> str:
    """Write the key of a service: `-t 172.17.0.7:80`, `-u [fd00::7]:53`, `-f 7 -6`."""
    protocol, address, port = key
    if protocol == FWMARK:
        return f"-f {port} -6" if is_ipv6(address) else f"-f {port}"
    return f"{SERVICE_OPTIONS[protocol]} {_write_endpoint(address, port)}"


def server_key_options(key: ServerKey) -> str:
    """Write the key of a server in its service: `-r 172.17.0.4:80`."""
    return f"-r {_write_endpoint(*key)}"


def server_options(server: Server) -> str:
    """Write a server: `-r 172.17.0.4:80 -m -w 100`. The deadline of a draining server is not written as a threshold."""
    words = [f"{server_key_options(server.key)} {FORWARD_OPTIONS[server.forward]} -w {server.weight}"]
    if server.upper_threshold and server.deadline is None:
        words.append(f"-x {server.upper_threshold}")
    if server.lower_threshold:
        words.append(f"-y {server.lower_threshold}")
    if server.forward == "tunnel":
        words.append(f"--tun-type {server.tun_type}")
        if server.tun_type == TYPE_WITH_PORT:
            words.append(f"--tun-port {server.tun_port}")
        if server.tun_type in TYPES_WITH_CHECKSUM:
            words.append(CHECKSUM_OPTIONS[server.tun_checksum])
    return " ".join(words)


def _write_endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if is_ipv6(address) else f"{address}:{port}"
