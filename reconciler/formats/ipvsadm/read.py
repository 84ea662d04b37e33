"""The options of one line → a service, a server, or their keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache, partial

from reconciler.formats.ipvsadm.popt import Options
from reconciler.formats.ipvsadm.words import CHECKSUM_OPTIONS, FORWARD_OPTIONS, SERVICE_OPTIONS, TYPES_WITH_CHECKSUM
from reconciler.model.address import is_ipv6, pack, parse_address
from reconciler.model.ipvs import (
    DEFAULT_SCHEDULER,
    FWMARK,
    FWMARK_MAX,
    PERSISTENCE_ENGINES,
    PERSISTENT_MAX,
    PORT_MAX,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    THRESHOLD_MAX,
    TUN_TYPES,
    WEIGHT_MAX,
    Server,
    ServerProblem,
    Service,
    ServiceKey,
    endpoint_problems,
    scheduler_flag_names,
    threshold_problems,
    tunnel_problems,
)
from reconciler.wording import suggest

FORWARD_OF = {option: forward for forward, option in FORWARD_OPTIONS.items()}
_PROTOCOL_OF = {option: protocol for protocol, option in SERVICE_OPTIONS.items()}
_CHECKSUM_OF = {option: checksum for checksum, option in CHECKSUM_OPTIONS.items()}
# Of each field of Server that may be invalid: the slot of its option.
_TUNNEL_SLOTS = {"tun_type": "tun-type", "tun_port": "tun-port", "tun_checksum": "tun-checksum"}
_SLOTS = {"address": "server", "port": "server", "lower_threshold": "lower", **_TUNNEL_SLOTS}
_PREFIX_MAX = 128
# What is not an IPv6 address: a letter that is no digit of one, or any letter without a colon.
_NAME = re.compile(r"[g-zG-Z]|\A[^:]*[A-Za-z][^:]*\Z")
_SAVE_NUMBERS = "; `ipvsadm -Sn` saves numbers instead of names"

_BRACKETED = re.compile(r"\[([0-9A-Fa-f.]*:[0-9A-Fa-f.:]*)\](?::(.*))?")


def read_key(options: Options) -> ServiceKey:
    """Read the key of the service of a line. ValueError if it is missing or wrong."""
    if "service" not in options:
        raise ValueError("no service; expected one of -t, -u, --sctp-service, -f")
    return service_key(*options["service"], "ipv6" in options)


# Each line of a service repeats it.
@lru_cache(maxsize=4096)
def service_key(option: str, text: str, ipv6: bool) -> ServiceKey:
    """Read the key of a service from its option and its value; `ipv6`: the line has -6. ValueError if it is wrong."""
    protocol = _PROTOCOL_OF[option]
    if protocol == FWMARK:
        return protocol, "::" if ipv6 else "0.0.0.0", to_number(option, text, 1, FWMARK_MAX)
    if ipv6:
        raise ValueError("-6 is possible only with -f")
    address, port = _read_endpoint(option, text)
    return protocol, address, port or 0


def _read_endpoint(option: str, text: str) -> tuple[str, int | None]:
    """Read `10.0.0.1:80`, `[fd00::1]:80`, or an address without a port (None). ValueError if it is wrong."""
    address, port = _split_endpoint(text)
    try:
        address = parse_address(address)
    except ValueError as error:
        hint = _SAVE_NUMBERS if _NAME.search(address) else ""
        raise ValueError(f"{option} {text}: {error} (host names are not looked up{hint})") from None
    if port is None:
        return address, None
    try:
        return address, to_number(f"{option} {text}: port", port, 0, PORT_MAX)
    except ValueError as error:
        raise ValueError(f"{error} (names are not looked up{_SAVE_NUMBERS})" if _NAME.search(port) else error) from None


def _split_endpoint(text: str) -> tuple[str, str | None]:
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, port
    match = _BRACKETED.fullmatch(text)
    return (match[1], match[2]) if match else (text, None)


def to_number(option: str, text: str, low: int, high: int) -> int:
    """Read the number of an option. ValueError if it is not a number from `low` to `high`."""
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
    """Read an -A line: a partial service, which lacks its key and its servers. ValueError if it is wrong."""
    protocol, address, port = key
    scheduler = _read_choice(options, "scheduler", DEFAULT_SCHEDULER, SCHEDULERS)
    persistent = _read_number(options, "persistent", 0, 1, PERSISTENT_MAX)
    netmask = read_netmask(*options["netmask"], address) if "netmask" in options else None
    if not (port or persistent):
        raise ValueError("no port; only a persistent service (-p) may have port 0, which means all ports")
    if "ops" in options and protocol not in {"udp", FWMARK}:
        raise ValueError("-o is possible only for UDP services and firewall marks")
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
    """Read a netmask of the family of its service; a full netmask is None. ValueError if it is wrong."""
    if is_ipv6(service_address):
        bits = to_number(option, text, 1, _PREFIX_MAX)
        return None if bits == _PREFIX_MAX else str(bits)
    try:
        packed = pack(text)
    except ValueError:
        packed = b""
    if len(packed) != 4:
        raise ValueError(f"{option} {text}: not a netmask; expected one such as 255.255.255.0")
    return None if packed == b"\xff" * 4 else text


def _read_flags(option: str, text: str, scheduler: str) -> tuple[str, ...]:
    """Read flags, by the scheduler's own names or `flag-1` to `flag-3`; return each once, in the order of bits."""
    names = scheduler_flag_names(scheduler)
    bits = {name: bit for known in (SCHEDULER_FLAGS, names) for bit, name in enumerate(known)}
    flags = [flag for flag in text.split(",") if flag]
    for flag in flags:
        if flag not in bits:
            raise ValueError(f'{option} {text}: {scheduler} has no flag "{flag}"; {suggest(flag, bits)}')
    return tuple(names[bit] for bit in sorted({bits[flag] for flag in flags}))


def read_server(options: Options, key: ServiceKey) -> Server:
    """Read the server of an -a line for the service of a key. ValueError if it is wrong."""
    if "server" not in options:
        raise ValueError("no server; expected -r")
    forward = FORWARD_OF[options["forward"][0]] if "forward" in options else "dr"
    address, port = read_server_endpoint(*options["server"], forward, key)
    upper = _read_number(options, "upper", 0, 0, THRESHOLD_MAX)
    lower = _read_number(options, "lower", 0, 0, THRESHOLD_MAX)
    _refuse(threshold_problems(upper, lower), options)
    tun_type, tun_port, tun_checksum = _read_tunnel(options, forward)
    return Server(
        address=address,
        port=port,
        forward=forward,
        weight=_read_number(options, "weight", 1, 0, WEIGHT_MAX),
        upper_threshold=upper,
        lower_threshold=lower,
        tun_type=tun_type,
        tun_port=tun_port,
        tun_checksum=tun_checksum,
    )


def read_server_endpoint(option: str, text: str, forward: str, key: ServiceKey) -> tuple[str, int]:
    """Read the address and port of a server for the service of a key. ValueError if it is wrong.

    As ipvsadm has it, a server without a port, or not behind NAT, has the port of its service.
    """
    protocol, _, service_port = key
    address, port = _read_endpoint(option, text)
    if protocol == FWMARK:
        port = port or 0
    elif port is None or forward != "nat":
        port = service_port
    _refuse(endpoint_problems(address, port, forward, key), {"server": (option, text)})
    return address, port


def _read_tunnel(options: Options, forward: str) -> tuple[str, int, str]:
    """Read the type, port and checksum of a tunnel; the defaults if there is none. ValueError if they are wrong."""
    given = [field for field, slot in _TUNNEL_SLOTS.items() if slot in options]
    tun_type = _read_choice(options, "tun-type", "ipip", TUN_TYPES)
    tun_port = _read_number(options, "tun-port", 0, 1, PORT_MAX)
    option = options["tun-checksum"][0] if "tun-checksum" in options else ""
    tun_checksum = _CHECKSUM_OF[option] if option else "none"
    _refuse(tunnel_problems(forward, tun_type, tun_port, tun_checksum, given), options)
    if option and tun_type not in TYPES_WITH_CHECKSUM:
        raise ValueError(f"{option}: {tun_type} tunnels have no checksum")
    return tun_type, tun_port, tun_checksum


def _refuse(problems: Iterable[ServerProblem], options: Options) -> None:
    """Raise ValueError with the first problem, if there is one."""
    for each in problems:
        slot = _SLOTS[each.field]
        name = " ".join(options.get(slot, (f"--{slot}", ""))).rstrip()
        raise ValueError(f"{name}: {each.message.format(tunnel='-i')}")
