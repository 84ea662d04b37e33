"""ipvsadm's notation of services and servers, both ways: rule texts (`ipvsadm -S`, `ipvsadm -R`) and options.

A rule means what it means to ipvsadm 1.31, defaults and rewritten ports included. Kinder than `ipvsadm -R`: comments
are allowed, options and lines may stand in any order, and every bad line is reported. Stricter: nothing is looked up
by name, and a line does only what it says (ipvsadm reads `10.1` as an address, and may drop a netmask in silence).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from typing import NamedTuple

from reconciler.formats.popt import Options, read_command, read_options
from reconciler.model.address import family_name, is_ipv6, is_unicast, pack, parse_address
from reconciler.model.ipvs import (
    DEFAULT_SCHEDULER,
    FWMARK,
    PERSISTENCE_ENGINES,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    TUN_TYPES,
    Server,
    ServerKey,
    Service,
    ServiceKey,
    Timeouts,
    scheduler_flag_names,
)
from reconciler.wording import suggest

PORT_MAX = 65535
FWMARK_MAX = 4294967295
WEIGHT_MAX = 65535
PERSISTENT_MAX = 2678400
THRESHOLD_MAX = 1073741823
PREFIX_MAX = 128
TIMEOUT_MAX = 1296000

_SERVICE_OPTIONS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service", FWMARK: "-f"}
_FORWARD_OPTIONS = {"nat": "-m", "dr": "-g", "tunnel": "-i"}
_CHECKSUM_OPTIONS = {"none": "--tun-nocsum", "csum": "--tun-csum", "remcsum": "--tun-remcsum"}
_PROTOCOL_OF = {option: protocol for protocol, option in _SERVICE_OPTIONS.items()}
_FORWARD_OF = {option: forward for forward, option in _FORWARD_OPTIONS.items()}
_CHECKSUM_OF = {option: checksum for checksum, option in _CHECKSUM_OPTIONS.items()}
# What each type of tunnel has beside its type, as ipvsadm demands and prints it.
_TUNNEL_CHECKSUMS = {"ipip": (), "gue": ("none", "csum", "remcsum"), "gre": ("none", "csum")}
_TUNNEL_PORTS = ("gue",)

_BRACKETED = re.compile(r"\[([0-9A-Fa-f.]*:[0-9A-Fa-f.:]*)\](?::(.*))?")
# The shapes that long texts consist of, one blank between words.
_COMMON_SERVICE = re.compile(r"-A (-[tu]) (\S+) -s (\S+)(?: -p ([0-9]+))?")
_COMMON_SERVER = re.compile(r"-a (-[tu]) (\S+) -r (\S+) (-[gim])(?: -w (\S+))?")


def parse_rules(text: str, refuse: Callable[[int, str], None]) -> list[Service]:
    """Read a rules text: services in its order, each with its servers in its order.

    Each line that is wrong is left out and told to `refuse`, in the order of the text: its number from 1, and why.
    """
    rules = _Rules()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rules.read(number, line)
        except ValueError as error:
            rules.refused.append((number, str(error)))
    services = rules.services()
    for number, message in sorted(rules.refused):
        refuse(number, message)
    return services


class _Rules:
    """What has been read so far. A server waits for its service, which may come later."""

    def __init__(self) -> None:
        self.refused: list[tuple[int, str]] = []
        self._services: dict[ServiceKey, partial[Service] | None] = {}
        self._servers: dict[ServiceKey, dict[ServerKey, tuple[int, Server]]] = {}

    def read(self, number: int, line: str) -> None:
        """Read a line. ValueError if it is wrong."""
        if match := _COMMON_SERVER.fullmatch(line):
            option, service, server, forward, weight = match.groups()
            key = _service_key(option, service, False)
            self._add_server(number, key, _common_server(key[2], is_ipv6(key[1]), server, forward, weight))
        elif match := _COMMON_SERVICE.fullmatch(line):
            option, service, scheduler, persistent = match.groups()
            key = _service_key(option, service, False)
            self._claim(key)
            self._services[key] = _common_service(key[2], scheduler, persistent)
        else:
            self._read_any(number, line)

    def _read_any(self, number: int, line: str) -> None:
        words = line.split()
        # Rules taken from a script begin with it, and `ipvsadm -R` takes them.
        if words[:1] == ["ipvsadm"]:
            del words[0]
        if not words or words[0].startswith("#"):
            return
        options: Options = {}
        try:
            read_options(words, options)
            key = _read_key(options)
        except ValueError:
            self._claim_unread(options)
            raise
        if options["command"][0] == "-a":
            self._add_server(number, key, _read_server(options, key))
        else:
            self._claim(key)
            self._services[key] = _read_service(options, key)

    def _claim_unread(self, options: Options) -> None:
        """Note the service of a line that is wrong, if it says one before that."""
        if options.get("command") == ("-A", "") and "service" in options:
            with suppress(ValueError):
                self._services.setdefault(_read_key(options))

    def _claim(self, key: ServiceKey) -> None:
        """Note that a service has its line, also if the rest of that is wrong: its servers are no mistakes then."""
        if key in self._services:
            raise ValueError(f"-A {service_key_options(key)}: this service is there already")
        self._services[key] = None

    def _add_server(self, number: int, key: ServiceKey, server: Server) -> None:
        servers = self._servers.setdefault(key, {})
        if server.key in servers:
            both = f"{service_key_options(key)} {server_key_options(server.key)}"
            raise ValueError(f"-a {both}: this server is there already")
        servers[server.key] = (number, server)

    def services(self) -> list[Service]:
        """Give the services with their servers; a server without a service is refused."""
        for key in self._servers.keys() - self._services.keys():
            message = f"-a {service_key_options(key)}: no such service in this manifest"
            self.refused += [(number, message) for number, _ in self._servers[key].values()]
        return [self._join(key, make) for key, make in self._services.items() if make]

    def _join(self, key: ServiceKey, make: partial[Service]) -> Service:
        protocol, address, port = key
        servers = tuple([server for _, server in self._servers.get(key, {}).values()])
        return make(protocol=protocol, address=address, port=port, servers=servers)


# Services differ in little but their key, and -s and -p are the same for any protocol and address.
@lru_cache(maxsize=4096)
def _common_service(port: int, scheduler: str, persistent: str | None) -> partial[Service]:
    options = {"scheduler": ("-s", scheduler)}
    if persistent:
        options["persistent"] = ("-p", persistent)
    return _read_service(options, ("tcp", "", port))


# The servers of many services differ in nothing.
@lru_cache(maxsize=4096)
def _common_server(service_port: int, ipv6: bool, server: str, forward: str, weight: str | None) -> Server:
    forward = _FORWARD_OF[forward]
    address, port = _read_server_endpoint("-r", server, forward, ipv6)
    return Server(
        address=address,
        port=_server_port(port, service_port, forward),
        forward=forward,
        weight=to_number("-w", weight, 0, WEIGHT_MAX) if weight else 1,
    )


def _read_key(options: Options) -> ServiceKey:
    if "service" not in options:
        raise ValueError("no service; expected one of -t, -u, --sctp-service, -f")
    return _service_key(*options["service"], "ipv6" in options)


# Stands on each line of a service.
@lru_cache(maxsize=4096)
def _service_key(option: str, text: str, ipv6: bool) -> ServiceKey:
    protocol = _PROTOCOL_OF[option]
    if protocol == FWMARK:
        return protocol, "::" if ipv6 else "0.0.0.0", to_number(option, text, 1, FWMARK_MAX)
    if ipv6:
        raise ValueError("-6 goes with -f only")
    address, port = _read_endpoint(option, text)
    return protocol, address, port or 0


def _read_endpoint(option: str, text: str) -> tuple[str, int | None]:
    """Read `10.0.0.1:80`, `[fd00::1]:80`, or an address without a port."""
    address, port = _split_endpoint(text)
    try:
        address = parse_address(address)
    except ValueError as error:
        raise ValueError(f"{option} {text}: {error} (host names are not looked up)") from None
    return address, None if port is None else to_number(f"{option} {text}: port", port, 0, PORT_MAX)


def _split_endpoint(text: str) -> tuple[str, str | None]:
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, port
    match = _BRACKETED.fullmatch(text)
    return (match[1], match[2]) if match else (text, None)


def to_number(option: str, text: str, low: int, high: int) -> int:
    """Read the number that an option has. ValueError if it is none from `low` to `high`."""
    if text.isdecimal() and text.isascii() and len(text) <= 10 and low <= (number := int(text)) <= high:
        return number
    raise ValueError(f"{option} {text}: expected a number from {low} to {high}")


def _read_number(options: Options, slot: str, default: int, low: int, high: int) -> int:
    return to_number(*options[slot], low, high) if slot in options else default


def _read_choice(options: Options, slot: str, default: str, known: tuple[str, ...]) -> str:
    if slot not in options:
        return default
    option, text = options[slot]
    if text not in known:
        raise ValueError(f"{option} {text}: unknown; {suggest(text, known)}")
    return text


def _read_service(options: Options, key: ServiceKey) -> partial[Service]:
    """Read an -A line: what makes the service of its key and its servers."""
    protocol, address, port = key
    scheduler = _read_choice(options, "scheduler", DEFAULT_SCHEDULER, SCHEDULERS)
    persistent = _read_number(options, "persistent", 0, 1, PERSISTENT_MAX)
    netmask = read_netmask(*options["netmask"], address) if "netmask" in options else None
    if not (port or persistent):
        raise ValueError("no port; only a persistent service (-p) may have port 0, which is all of them")
    if "ops" in options and protocol not in {"udp", FWMARK}:
        raise ValueError("-o is for UDP services and firewall marks only")
    return partial(
        Service,
        scheduler=scheduler,
        scheduler_flags=_read_flags(*options["flags"], scheduler) if "flags" in options else (),
        persistent=persistent,
        netmask=netmask if persistent else None,
        persistence_engine=_read_choice(options, "engine", "", PERSISTENCE_ENGINES) or None,
        one_packet="ops" in options,
    )


def read_netmask(option: str, text: str, service_address: str) -> str | None:
    """Read a netmask of the family of its service; the full one is none."""
    if is_ipv6(service_address):
        bits = to_number(option, text, 1, PREFIX_MAX)
        return None if bits == PREFIX_MAX else str(bits)
    try:
        packed = pack(text)
    except ValueError:
        packed = b""
    if len(packed) != 4:
        raise ValueError(f"{option} {text}: not a netmask; expected one such as 255.255.255.0")
    return None if packed == b"\xff" * 4 else text


def _read_flags(option: str, text: str, scheduler: str) -> tuple[str, ...]:
    """Read flags, under names of the scheduler's own or `flag-1` to `flag-3`: each once, by bit."""
    names = scheduler_flag_names(scheduler)
    bits = {name: bit for known in (SCHEDULER_FLAGS, names) for bit, name in enumerate(known)}
    flags = [flag for flag in text.split(",") if flag]
    for flag in flags:
        if flag not in bits:
            raise ValueError(f'{option} {text}: {scheduler} has no flag "{flag}"; {suggest(flag, bits)}')
    return tuple(names[bit] for bit in sorted({bits[flag] for flag in flags}))


def _read_server(options: Options, key: ServiceKey) -> Server:
    """Read an -a line for a service."""
    protocol, service_address, service_port = key
    if "server" not in options:
        raise ValueError("no server; expected -r")
    forward = _FORWARD_OF[options["forward"][0]] if "forward" in options else "dr"
    address, port = _read_server_endpoint(*options["server"], forward, is_ipv6(service_address))
    upper, lower = _read_thresholds(options)
    kind, tun_port, checksum = _read_tunnel(options, forward)
    return Server(
        address=address,
        port=(port or 0) if protocol == FWMARK else _server_port(port, service_port, forward),
        forward=forward,
        weight=_read_number(options, "weight", 1, 0, WEIGHT_MAX),
        upper_threshold=upper,
        lower_threshold=lower,
        tun_type=kind,
        tun_port=tun_port,
        tun_checksum=checksum,
    )


def _read_server_endpoint(option: str, text: str, forward: str, ipv6: bool) -> tuple[str, int | None]:
    address, port = _read_endpoint(option, text)
    if not is_unicast(address):
        raise ValueError(f"{option} {text}: not a unicast address")
    if is_ipv6(address) != ipv6 and forward != "tunnel":
        other = "IPv6" if ipv6 else "IPv4"
        raise ValueError(f"{option} {text}: {family_name(address)} for an {other} service is only possible with -i")
    return address, port


def _server_port(port: int | None, service_port: int, forward: str) -> int:
    """Give the port of a server of a service that has one; nothing but NAT changes it."""
    return service_port if port is None or forward != "nat" else port


def _read_thresholds(options: Options) -> tuple[int, int]:
    upper = _read_number(options, "upper", 0, 0, THRESHOLD_MAX)
    lower = _read_number(options, "lower", 0, 0, THRESHOLD_MAX)
    if lower > upper:
        raise ValueError(f"-y {lower} is above -x {upper}" if upper else f"-y {lower} goes with -x only")
    return upper, lower


def _read_tunnel(options: Options, forward: str) -> tuple[str, int, str]:
    """Read the type, port and checksum of a tunnel; the defaults where there is none."""
    given = [options[slot][0] for slot in ("tun-type", "tun-port", "tun-checksum") if slot in options]
    if given and forward != "tunnel":
        raise ValueError(f"{given[0]} goes with -i only")
    kind = _read_choice(options, "tun-type", "ipip", TUN_TYPES)
    port = _read_number(options, "tun-port", 0, 1, PORT_MAX)
    if bool(port) != (kind in _TUNNEL_PORTS):
        raise ValueError(f"--tun-type {kind} has no --tun-port" if port else f"--tun-type {kind} needs a --tun-port")
    if "tun-checksum" not in options:
        return kind, port, "none"
    option = options["tun-checksum"][0]
    if _CHECKSUM_OF[option] not in _TUNNEL_CHECKSUMS[kind]:
        raise ValueError(f"--tun-type {kind} has no {option}")
    return kind, port, _CHECKSUM_OF[option]


class Command(NamedTuple):
    """A command line of ipvsadm, as far as it says something.

    `name`: -A, -E, -D, -C, -a, -e, -d, -L, -S or --set; `key`: the service it is about; `service`: without servers.
    """

    name: str
    key: ServiceKey | None = None
    service: Service | None = None
    server: Server | None = None
    timeouts: Timeouts | None = None


def parse_command(text: str) -> Command:
    """Read a command line. A server for which no way of forwarding is given is reached by NAT. ValueError if it is wrong."""
    words = text.split()
    if words[:1] == ["--set"]:
        return Command("--set", timeouts=_read_timeouts(words[1:]))
    options = read_command(words)
    name, _ = options["command"]
    if name in {"-C", "-S"} or (name == "-L" and options.keys() <= {"command", "numeric"}):
        return Command(name)
    key = _read_key(options)
    protocol, address, port = key
    service = server = None
    if name in {"-A", "-E"}:
        service = _read_service(options, key)(protocol=protocol, address=address, port=port)
    elif name in {"-a", "-e", "-d"}:
        options.setdefault("forward", ("-m", ""))
        server = _read_server(options, key)
    return Command(name, key, service, server)


def _read_timeouts(words: list[str]) -> Timeouts:
    """Read the three timeouts of --set; 0 leaves one as it is."""
    if len(words) != len(Timeouts._fields):
        raise ValueError("--set takes three numbers: the seconds for TCP, for TCP after a FIN, and for UDP")
    return Timeouts(*(to_number("--set", word, 0, TIMEOUT_MAX) or None for word in words))


def save_rules(services: Iterable[Service]) -> Iterator[str]:
    """Write services as `ipvsadm -Sn` does, a line each and one for each server, in their order.

    Also what `ipvsadm -Sn` leaves out or writes wrong: thresholds, the third flag of `sh` and `mh`, marks above 2^31.
    """
    for service in services:
        yield f"-A {service_options(service)}"
        key = service_key_options(service.key)
        for server in service.servers:
            yield f"-a {key} {server_options(server)}"


def service_options(service: Service) -> str:
    """Write all that a service is but its servers: `-t 172.17.0.7:80 -s rr -p 3000`."""
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
    """Write what identifies a service: `-t 172.17.0.7:80`, `-u [fd00::7]:53`, `-f 7 -6`."""
    protocol, address, port = key
    if protocol == FWMARK:
        return f"-f {port} -6" if is_ipv6(address) else f"-f {port}"
    return f"{_SERVICE_OPTIONS[protocol]} {_write_endpoint(address, port)}"


def server_key_options(key: ServerKey) -> str:
    """Write what identifies a server in its service: `-r 172.17.0.4:80`."""
    return f"-r {_write_endpoint(*key)}"


def server_options(server: Server) -> str:
    """Write all that a server is: `-r 172.17.0.4:80 -m -w 100`. The deadline of a drained one is no threshold."""
    words = [f"{server_key_options(server.key)} {_FORWARD_OPTIONS[server.forward]} -w {server.weight}"]
    if server.upper_threshold and server.deadline is None:
        words.append(f"-x {server.upper_threshold}")
    if server.lower_threshold:
        words.append(f"-y {server.lower_threshold}")
    if server.forward == "tunnel":
        words.append(f"--tun-type {server.tun_type}")
        if server.tun_type in _TUNNEL_PORTS:
            words.append(f"--tun-port {server.tun_port}")
        if _TUNNEL_CHECKSUMS[server.tun_type]:
            words.append(_CHECKSUM_OPTIONS[server.tun_checksum])
    return " ".join(words)


def _write_endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if is_ipv6(address) else f"{address}:{port}"
