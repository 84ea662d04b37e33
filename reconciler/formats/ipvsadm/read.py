"""Options of one line → a service, a server, or what identifies them."""

from __future__ import annotations

import re
from functools import lru_cache, partial

from reconciler.formats.ipvsadm.popt import Options
from reconciler.formats.ipvsadm.words import (
    CHECKSUM_OPTIONS,
    FORWARD_OPTIONS,
    FWMARK_MAX,
    PERSISTENT_MAX,
    PORT_MAX,
    PREFIX_MAX,
    SERVICE_OPTIONS,
    THRESHOLD_MAX,
    TUNNEL_CHECKSUMS,
    TUNNEL_PORTS,
    WEIGHT_MAX,
)
from reconciler.model.address import family_name, is_ipv6, is_unicast, pack, parse_address
from reconciler.model.ipvs import (
    DEFAULT_SCHEDULER,
    FWMARK,
    PERSISTENCE_ENGINES,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    TUN_TYPES,
    Server,
    Service,
    ServiceKey,
    scheduler_flag_names,
)
from reconciler.wording import suggest

FORWARD_OF = {option: forward for forward, option in FORWARD_OPTIONS.items()}
_PROTOCOL_OF = {option: protocol for protocol, option in SERVICE_OPTIONS.items()}
_CHECKSUM_OF = {option: checksum for checksum, option in CHECKSUM_OPTIONS.items()}

_BRACKETED = re.compile(r"\[([0-9A-Fa-f.]*:[0-9A-Fa-f.:]*)\](?::(.*))?")


def read_key(options: Options) -> ServiceKey:
    """Read what identifies the service of a line. ValueError if it has none, or it is wrong."""
    if "service" not in options:
        raise ValueError("no service; expected one of -t, -u, --sctp-service, -f")
    return service_key(*options["service"], "ipv6" in options)


# Stands on each line of a service.
@lru_cache(maxsize=4096)
def service_key(option: str, text: str, ipv6: bool) -> ServiceKey:
    """Read it from its option and the value of that; `ipv6`: -6 stands beside it. ValueError if it is wrong."""
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


def read_service(options: Options, key: ServiceKey) -> partial[Service]:
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


def read_server(options: Options, key: ServiceKey) -> Server:
    """Read an -a line for a service."""
    protocol, service_address, service_port = key
    if "server" not in options:
        raise ValueError("no server; expected -r")
    forward = FORWARD_OF[options["forward"][0]] if "forward" in options else "dr"
    address, port = read_server_endpoint(*options["server"], forward, is_ipv6(service_address))
    upper, lower = _read_thresholds(options)
    kind, tun_port, checksum = _read_tunnel(options, forward)
    return Server(
        address=address,
        port=(port or 0) if protocol == FWMARK else server_port(port, service_port, forward),
        forward=forward,
        weight=_read_number(options, "weight", 1, 0, WEIGHT_MAX),
        upper_threshold=upper,
        lower_threshold=lower,
        tun_type=kind,
        tun_port=tun_port,
        tun_checksum=checksum,
    )


def read_server_endpoint(option: str, text: str, forward: str, ipv6: bool) -> tuple[str, int | None]:
    """Read the address and the port, if there is one, of a server for a service of IPv6 or IPv4. ValueError if it is wrong."""
    address, port = _read_endpoint(option, text)
    if not is_unicast(address):
        raise ValueError(f"{option} {text}: not a unicast address")
    if is_ipv6(address) != ipv6 and forward != "tunnel":
        other = "IPv6" if ipv6 else "IPv4"
        raise ValueError(f"{option} {text}: {family_name(address)} for an {other} service is only possible with -i")
    return address, port


def server_port(port: int | None, service_port: int, forward: str) -> int:
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
    if bool(port) != (kind in TUNNEL_PORTS):
        raise ValueError(f"--tun-type {kind} has no --tun-port" if port else f"--tun-type {kind} needs a --tun-port")
    if "tun-checksum" not in options:
        return kind, port, "none"
    option = options["tun-checksum"][0]
    if _CHECKSUM_OF[option] not in TUNNEL_CHECKSUMS[kind]:
        raise ValueError(f"--tun-type {kind} has no {option}")
    return kind, port, _CHECKSUM_OF[option]
