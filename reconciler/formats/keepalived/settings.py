"""The settings of virtual servers and of real servers, one function for each.

Each applies one setting. It returns the reason if the setting is not imported. ValueError if it is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from reconciler.formats.ipvsadm.read import to_number
from reconciler.formats.keepalived.statements import Statement
from reconciler.formats.keepalived.value import INET, INET6, choice, number, parameter, read_endpoint
from reconciler.formats.keepalived.virtual_server import Forwarding, RealServerBlock, VirtualServer
from reconciler.model.ipvs import (
    NAMED_SCHEDULER_FLAGS,
    PERSISTENCE_ENGINES,
    PERSISTENT_DEFAULT,
    PERSISTENT_MAX,
    PORT_MAX,
    PROTOCOLS,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    THRESHOLD_MAX,
    TUN_TYPES,
    WEIGHT_MAX,
    tunnel_problems,
)
from reconciler.wording import suggest

_T = TypeVar("_T")
Settings = Mapping[str, Callable[[_T, Statement], str | None]]

_UNSIGNED_MAX = 4294967295
_METHODS = {"NAT": "nat", "DR": "dr", "TUN": "tunnel"}


def _read_forwarding(statement: Statement) -> Forwarding:
    """Read `NAT`, `DR`, or `TUN` with `type`, `port` and a checksum in any order. ValueError if it is wrong."""
    method = _METHODS[choice(statement, tuple(_METHODS))]
    tun_type, port, checksum = "ipip", 0, "none"
    words = iter(statement.words[2:] if method == "tunnel" else ())
    for word in words:
        match word:
            case "type":
                tun_type = next(words, "")
            case "port":
                port = to_number("port", next(words, ""), 1, PORT_MAX)
            case "nocsum" | "csum" | "remcsum":
                checksum = "none" if word == "nocsum" else word
            case _:
                raise ValueError(f'{statement}: unexpected "{word}"')
    if tun_type not in TUN_TYPES:
        raise ValueError(f"{statement}: unknown type; {suggest(tun_type, TUN_TYPES)}")
    for problem in tunnel_problems(method, tun_type, port, checksum):
        raise ValueError(f"{statement}: {problem.message}")
    return Forwarding(method, tun_type, port, checksum)


def _set_scheduler(virtual: VirtualServer, statement: Statement) -> None:
    virtual.scheduler = choice(statement, SCHEDULERS)


def _set_flag(virtual: VirtualServer, statement: Statement) -> str | None:
    name = statement.words[0]
    known = SCHEDULER_FLAGS if name in SCHEDULER_FLAGS else NAMED_SCHEDULER_FLAGS.get(virtual.scheduler, ())
    if name not in known:
        return f"not imported because no line above sets the scheduler to {name[:2]}, as keepalived requires"
    virtual.scheduler_flags.add(known.index(name))
    return None


def _set_ops(virtual: VirtualServer, statement: Statement) -> None:
    virtual.ops = statement


def _set_default_forwarding(virtual: VirtualServer, statement: Statement) -> None:
    virtual.forwarding = _read_forwarding(statement)


def _set_protocol(virtual: VirtualServer, statement: Statement) -> None:
    value = parameter(statement).lower()
    if value not in PROTOCOLS:
        raise ValueError(f"{statement}: unknown; {suggest(value, PROTOCOLS)}")
    virtual.protocol = value


def _set_persistent(virtual: VirtualServer, statement: Statement) -> str | None:
    if len(statement.words) == 1:
        virtual.persistent = PERSISTENT_DEFAULT
        return None
    seconds = number(statement, 0, PERSISTENT_MAX)
    if not seconds:
        return "not imported because keepalived ignores 0"
    virtual.persistent = seconds
    return None


def _set_netmask(virtual: VirtualServer, statement: Statement) -> None:
    family = INET if "." in parameter(statement) else INET6
    virtual.family = virtual.family or family
    virtual.netmask = statement
    virtual.persistent = virtual.persistent or PERSISTENT_DEFAULT


def _set_engine(virtual: VirtualServer, statement: Statement) -> None:
    choice(statement, PERSISTENCE_ENGINES)
    virtual.engine = statement


def _set_family(virtual: VirtualServer, statement: Statement) -> None:
    family = choice(statement, (INET, INET6))
    if virtual.family not in ("", family):
        raise ValueError(f"{statement}: the lines above make this virtual server {virtual.family}")
    virtual.family = family


def _set_default_weight(virtual: VirtualServer, statement: Statement) -> None:
    virtual.weight = number(statement, 1, WEIGHT_MAX)


def _set_sorry(virtual: VirtualServer, statement: Statement) -> str:
    # It matters only for the family, and keepalived skips one that is wrong.
    with suppress(ValueError):
        address, port = read_endpoint(statement.words[1:])
        virtual.sorry = RealServerBlock(statement, address, port, forwarding=virtual.forwarding)
    return "not imported"


def _set_sorry_forwarding(virtual: VirtualServer, statement: Statement) -> str:
    if virtual.sorry:
        virtual.sorry.forwarding = _read_forwarding(statement)
    return "not imported"


def _keep_sorry(virtual: VirtualServer, _: Statement) -> str:
    virtual.keeps_sorry = virtual.sorry is not None
    return "not imported"


# A quorum matters only for the sorry server, and keepalived goes on with one that is wrong.
def _set_quorum(virtual: VirtualServer, statement: Statement) -> str:
    virtual.quorum = 1
    with suppress(ValueError):
        virtual.quorum = number(statement, 1, _UNSIGNED_MAX)
    return "not imported"


def _set_hysteresis(virtual: VirtualServer, statement: Statement) -> str:
    with suppress(ValueError):
        virtual.hysteresis = number(statement, 0, _UNSIGNED_MAX)
    return "not imported"


def _set_weight(real: RealServerBlock, statement: Statement) -> None:
    real.weight = number(statement, 0, WEIGHT_MAX)


def _set_forwarding(real: RealServerBlock, statement: Statement) -> None:
    real.forwarding = _read_forwarding(statement)


def _set_upper(real: RealServerBlock, statement: Statement) -> None:
    real.upper_threshold = number(statement, 0, THRESHOLD_MAX)


def _set_lower(real: RealServerBlock, statement: Statement) -> None:
    real.lower_threshold = number(statement, 0, THRESHOLD_MAX)


VIRTUAL_SETTINGS: Settings[VirtualServer] = {
    "lb_algo": _set_scheduler,
    "lvs_sched": _set_scheduler,
    "lb_kind": _set_default_forwarding,
    "lvs_method": _set_default_forwarding,
    "protocol": _set_protocol,
    "persistence_timeout": _set_persistent,
    "persistence_granularity": _set_netmask,
    "persistence_engine": _set_engine,
    "ops": _set_ops,
    "ip_family": _set_family,
    "weight": _set_default_weight,
    "sorry_server": _set_sorry,
    "sorry_server_inhibit": _keep_sorry,
    "sorry_server_lvs_method": _set_sorry_forwarding,
    "quorum": _set_quorum,
    "hysteresis": _set_hysteresis,
    **dict.fromkeys(
        (*SCHEDULER_FLAGS, *(name for names in NAMED_SCHEDULER_FLAGS.values() for name in names)), _set_flag
    ),
}
REAL_SETTINGS: Settings[RealServerBlock] = {
    "weight": _set_weight,
    "lvs_method": _set_forwarding,
    "uthreshold": _set_upper,
    "lthreshold": _set_lower,
}
