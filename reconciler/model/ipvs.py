"""The IPVS table: virtual services, their servers, timeouts, and settings, as the kernel tells them apart.

Names are those of ipvsadm(8); numbers and limits those of include/uapi/linux/ip_vs.h and of the kernel's modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from reconciler.model.address import contains, family_name, is_ipv6, is_unicast

PROTOCOLS = ("tcp", "udp", "sctp")
FWMARK = "fwmark"
FORWARDS = ("nat", "dr", "tunnel")
TUN_TYPES = ("ipip", "gue", "gre")
TUN_CHECKSUMS = ("none", "csum", "remcsum")
# ip_vs.h: the checksums that each type of tunnel can have. Only gue runs over UDP and so has a port.
CHECKSUMS_OF = {"ipip": ("none",), "gue": TUN_CHECKSUMS, "gre": ("none", "csum")}
TYPE_WITH_PORT = "gue"
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos")
DEFAULT_SCHEDULER = "wlc"
# Services and servers of a table together: what the imperative system takes.
RULES_MAX = 20_000
# Bits 3 to 5 of a service's flags belong to its scheduler; `sh` and `mh` give the first two names of their own.
SCHEDULER_FLAGS = ("flag-1", "flag-2", "flag-3")
NAMED_SCHEDULER_FLAGS = {"sh": ("sh-fallback", "sh-port"), "mh": ("mh-fallback", "mh-port")}
PERSISTENCE_ENGINES = ("sip",)
# What may be set for a moment, and what decides whether connection tracking knows of IPVS.
NODEST, CONNTRACK = "expire_nodest_conn", "conntrack"
IGNORABLE = ("weight",)
# net.ipv4.vs.*, what says how packets are handled (Documentation/networking/ipvs-sysctl.rst).
SYSCTLS = (
    "am_droprate",
    "amemthresh",
    "cache_bypass",
    "conn_reuse_mode",
    "conntrack",
    "drop_entry",
    "drop_packet",
    "expire_nodest_conn",
    "expire_quiescent_template",
    "ignore_tunneled",
    "nat_icmp_send",
    "pmtu_disc",
    "run_estimation",
    "schedule_icmp",
    "secure_tcp",
    "sloppy_sctp",
    "sloppy_tcp",
    "snat_reroute",
)

# An upper threshold with this bit is no threshold but the moment until which a server of weight 0 is drained: the
# kernel keeps it and heeds no threshold of such a server. The rest are the low bits of that moment in Unix seconds.
DRAINING = 1 << 30
_MOMENT = DRAINING - 1

PORT_MAX = 65535
FWMARK_MAX = 4294967295
WEIGHT_MAX = 65535
THRESHOLD_MAX = DRAINING - 1
# Seconds: 31 and 15 days.
PERSISTENT_MAX = 2678400
TIMEOUT_MAX = 1296000

ServiceKey = tuple[str, str, int]
ServerKey = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A real server. `port` 0 is that of the packet; thresholds 0 mean none.

    `tun_type`, `tun_port` and `tun_checksum` are of servers behind a tunnel; the others have the defaults.
    """

    address: str
    port: int = 0
    forward: str = "nat"
    weight: int = 1
    upper_threshold: int = 0
    lower_threshold: int = 0
    tun_type: str = "ipip"
    tun_port: int = 0
    tun_checksum: str = "none"

    @property
    def key(self) -> ServerKey:
        """What identifies it in its service."""
        return (self.address, self.port)

    @property
    def deadline(self) -> int | None:
        """The low bits of the moment until which it is drained; None if it is not."""
        draining = self.weight == 0 and self.upper_threshold & DRAINING
        return self.upper_threshold & _MOMENT if draining else None

    def draining(self, until: float) -> Server:
        """Give it as it is drained until a moment (Unix seconds)."""
        return replace(self, weight=0, upper_threshold=DRAINING | (int(until) & _MOMENT), lower_threshold=0)


class ServerProblem(NamedTuple):
    """What is wrong with one field of a server, in words that any notation of servers can use.

    `field` is the name of a field of Server. `message` has `{tunnel}` where a notation names its word for forwarding by
    tunnel. `misplaced`: the field must not be there at all, whatever its value.
    """

    field: str
    message: str
    misplaced: bool = False


def endpoint_problems(address: str, port: int, forward: str, service: ServiceKey) -> Iterator[ServerProblem]:
    """Yield what is wrong with the address and port of a server of a service."""
    protocol, service_address, service_port = service
    if not is_unicast(address):
        yield ServerProblem("address", f"{address} is not a unicast address")
    elif is_ipv6(address) != is_ipv6(service_address) and forward != "tunnel":
        families = f"{address} is {family_name(address)} and the service is {family_name(service_address)}"
        yield ServerProblem("address", f"{families}; only a tunnel ({{tunnel}}) can reach it")
    elif port != service_port and forward != "nat" and protocol != FWMARK:
        yield ServerProblem("port", f"{forward} does not change the port; expected {service_port}, or no port")


def threshold_problems(upper: int, lower: int) -> Iterator[ServerProblem]:
    """Yield what is wrong with the thresholds of a server; 0 is none."""
    if lower and not upper:
        yield ServerProblem("lower_threshold", "a lower threshold needs an upper one", misplaced=True)
    elif lower > upper:
        yield ServerProblem("lower_threshold", f"the lower threshold {lower} is above the upper one, {upper}")


def tunnel_problems(
    forward: str, tun_type: str, tun_port: int, tun_checksum: str, given: Iterable[str] = ()
) -> Iterator[ServerProblem]:
    """Yield what is wrong with the tunnel of a server; port 0 is none.

    `given`: the fields about a tunnel that are written out. A server without a tunnel must have none of them.
    """
    if forward != "tunnel":
        for field in given:
            yield ServerProblem(field, "this setting needs a tunnel ({tunnel})", misplaced=True)
        return
    if tun_type == TYPE_WITH_PORT and not tun_port:
        yield ServerProblem("tun_port", f"a {tun_type} tunnel needs a UDP port from 1 to {PORT_MAX}")
    elif tun_type != TYPE_WITH_PORT and tun_port:
        message = f"only a {TYPE_WITH_PORT} tunnel has a port; this one is {tun_type}"
        yield ServerProblem("tun_port", message, misplaced=True)
    if tun_checksum not in CHECKSUMS_OF[tun_type]:
        expected = " or ".join(CHECKSUMS_OF[tun_type])
        yield ServerProblem("tun_checksum", f"{tun_type} tunnels cannot have {tun_checksum}; expected {expected}")


def scheduler_flag_names(scheduler: str) -> tuple[str, ...]:
    """Give the names of a scheduler's flags, by bit."""
    named = NAMED_SCHEDULER_FLAGS.get(scheduler, ())
    return named + SCHEDULER_FLAGS[len(named) :]


def is_past(deadline: int, now: float) -> bool:
    """Tell whether a server's deadline is over. Compared as a ring of 34 years, as only the low bits are known."""
    return (int(now) - deadline) & _MOMENT < DRAINING >> 1


def seconds_left(deadline: int, now: float) -> int:
    """Give the seconds until a server's deadline; 0 if it is over."""
    return 0 if is_past(deadline, now) else (deadline - int(now)) & _MOMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A virtual service.

    `protocol` is one of PROTOCOLS, or `fwmark`: then `port` is the mark and `address` is `0.0.0.0` or `::`, its family.
    `persistent` in seconds, 0: not; `netmask` as ipvsadm has it (`255.255.255.0`, or `64` for IPv6), None: each client
    by itself.
    `ignore` says which fields of its servers are somebody else's to change; it is never observed. `marked`: whether it
    carries our mark, as all that we want does.
    """

    protocol: str
    address: str
    port: int
    scheduler: str = DEFAULT_SCHEDULER
    scheduler_flags: tuple[str, ...] = ()
    persistent: int = 0
    netmask: str | None = None
    persistence_engine: str | None = None
    one_packet: bool = False
    servers: tuple[Server, ...] = ()
    ignore: tuple[str, ...] = ()
    marked: bool = True

    @property
    def key(self) -> ServiceKey:
        """What identifies it in the kernel."""
        return (self.protocol, self.address, self.port)

    @property
    def is_ipv6(self) -> bool:
        """Tell its family."""
        return is_ipv6(self.address)


class Timeouts(NamedTuple):
    """Seconds until a silent connection is forgotten; None: leave it."""

    tcp: int | None = None
    tcpfin: int | None = None
    udp: int | None = None


LEAVE_TIMEOUTS = Timeouts()


class Excluded(NamedTuple):
    """What belongs to somebody else whatever the rest says: services of an address prefix, or of a firewall mark."""

    prefix: str | None = None
    fwmark: int | None = None

    def covers(self, key: ServiceKey) -> bool:
        """Tell whether a service is meant."""
        protocol, address, port = key
        if protocol == FWMARK:
            return self.fwmark == port
        return self.prefix is not None and contains(self.prefix, address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipvs:
    """The section. None: leave alone; `services` (): none of ours.

    `sysctls`: (name below net.ipv4.vs, value), by name. `drain`: seconds that a removed server's connections are given
    to end; 0: it goes at once.
    """

    services: tuple[Service, ...] | None = None
    timeouts: Timeouts = LEAVE_TIMEOUTS
    sysctls: tuple[tuple[str, int], ...] = ()
    exclude: tuple[Excluded, ...] = ()
    drain: int = 0

    def excludes(self, key: ServiceKey) -> bool:
        """Tell whether a service is somebody else's whatever the rest says."""
        return any(each.covers(key) for each in self.exclude)
