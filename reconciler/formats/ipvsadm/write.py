"""Services and servers → rules, and the options of commands.

An observed service or server can have values for which ipvsadm has no option, as only netlink can set them. They are
written in parentheses, by name or number, such as `(forward localnode)`; no line with such a word can be read or run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.formats.ipvsadm.words import CHECKSUM_OPTIONS, FORWARD_OPTIONS, SERVICE_OPTIONS, TYPES_WITH_CHECKSUM
from reconciler.model.address import is_ipv6
from reconciler.model.ipvs import CHECKSUMS_OF, FWMARK, TYPE_WITH_PORT, Server, ServerKey, Service, ServiceKey


def save_rules(services: Iterable[Service]) -> Iterator[str]:
    """Yield services as `ipvsadm -Sn` writes them: a line for each service and for each server, in their order.

    Unlike `ipvsadm -Sn`, write thresholds, the third flag of `sh` and `mh`, and marks above 2^31 correctly.
    """
    for service in services:
        yield f"-A {service_options(service)}"
        key = service_key_options(service.key)
        for server in service.servers:
            yield f"-a {key} {server_options(server)}"


def restorable_rules(services: Iterable[Service]) -> Iterator[str]:
    """Yield the rules that ipvsadm can restore, and then the others as comments, at which it stops."""
    others: list[str] = []
    for service in services:
        head, *servers = save_rules((service,))
        lines = [head, *servers]
        kept = [] if has_no_option(head) else [line for line in lines if not has_no_option(line)]
        yield from kept
        others += [f"# ipvsadm has no option for this: {line}" for line in lines if line not in kept]
    yield from others


def has_no_option(text: str) -> bool:
    """Return whether a rule or command has a value for which ipvsadm has no option."""
    return " (" in f" {text}"


def service_options(service: Service) -> str:
    """Write a service without its servers: `-t 172.17.0.7:80 -s rr -p 3000`."""
    words = [service_key_options(service.key), f"-s {service.scheduler}"]
    if service.persistent:
        words.append(f"-p {service.persistent}" if service.persistent > 0 else "(persistent 0)")
    if service.netmask:
        words.append(f"-M {service.netmask}")
    if service.persistence_engine:
        words.append(f"--pe {service.persistence_engine}")
    if service.one_packet:
        words.append("-o")
    if service.kernel_flags:
        words.append(f"-b {','.join(service.kernel_flags)}")
    if service.other_flags:
        words.append(f"(flags {service.other_flags:#x})")
    return " ".join(words)


def service_key_options(key: ServiceKey) -> str:
    """Write the key of a service: `-t 172.17.0.7:80`, `-u [fd00::7]:53`, `-f 7 -6`."""
    protocol, address, port = key
    if protocol == FWMARK:
        return f"-f {port} -6" if is_ipv6(address) else f"-f {port}"
    return f"{SERVICE_OPTIONS.get(protocol, f'(protocol {protocol})')} {_write_endpoint(address, port)}"


def server_key_options(key: ServerKey) -> str:
    """Write the key of a server in its service: `-r 172.17.0.4:80`."""
    return f"-r {_write_endpoint(*key)}"


def server_options(server: Server) -> str:
    """Write a server: `-r 172.17.0.4:80 -m -w 100`. The deadline of a draining server is not written as a threshold."""
    forward = FORWARD_OPTIONS.get(server.forward, f"(forward {server.forward})")
    words = [f"{server_key_options(server.key)} {forward} -w {server.weight}"]
    if server.upper_threshold and server.deadline is None:
        words.append(f"-x {server.upper_threshold}")
    if server.lower_threshold:
        words.append(f"-y {server.lower_threshold}")
    return " ".join((*words, *_tunnel_words(server)))


def _tunnel_words(server: Server) -> Iterator[str]:
    """Yield the options of a tunnel, and what other programs have set although a server has no such tunnel."""
    tunnel = server.forward == "tunnel"
    if tunnel and server.tun_type in CHECKSUMS_OF:
        yield f"--tun-type {server.tun_type}"
    elif tunnel or server.tun_type != "ipip":
        yield f"(tunnel type {server.tun_type})"
    if tunnel and server.tun_type == TYPE_WITH_PORT:
        yield f"--tun-port {server.tun_port}"
    elif server.tun_port:
        yield f"(tunnel port {server.tun_port})"
    if tunnel and server.tun_type in TYPES_WITH_CHECKSUM and server.tun_checksum in CHECKSUMS_OF[server.tun_type]:
        yield CHECKSUM_OPTIONS[server.tun_checksum]
    elif server.tun_checksum != "none":
        yield f"(tunnel checksum {server.tun_checksum})"


def _write_endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if is_ipv6(address) else f"{address}:{port}"
