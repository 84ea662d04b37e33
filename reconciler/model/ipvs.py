"""The IPVS table as the kernel has it: virtual services, their servers, timeouts and settings; and what is invalid.

Names are those of ipvsadm(8); numbers and limits those of include/uapi/linux/ip_vs.h and of the kernel's modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.model.address import contains, family_name, is_ipv6, is_unicast
from reconciler.values import NamedTuple, dataclass, field, replace

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
# Services and servers of a table together: the limit of openEuler's kata-runtime.
RULES_MAX = 20_000
# Bits 3 to 5 of a service's flags belong to its scheduler; `sh` and `mh` have their own names for the first two.
SCHEDULER_FLAGS = ("flag-1", "flag-2", "flag-3")
NAMED_SCHEDULER_FLAGS = {"sh": ("sh-fallback", "sh-port"), "mh": ("mh-fallback", "mh-port")}
# These choose a server by a hash, and refuse the client if the weight of that server is 0 or its threshold is reached
# (ip_vs_mh.c, ip_vs_sh.c, ip_vs_dh.c). With the flag they try the next server; dh has none.
FALLBACK_FLAGS: dict[str, str | None] = {"mh": "mh-fallback", "sh": "sh-fallback", "dh": None}
PERSISTENCE_ENGINES = ("sip",)
# How a watcher guards services: by a table of nftables, too, or only by restoring them.
GUARD_NFT, GUARD_SERVICES = "nft", "services"
# Two sysctls: one is switched on temporarily while servers are removed, one adds IPVS to connection tracking.
NODEST, CONNTRACK = "expire_nodest_conn", "conntrack"
# The settings in net.ipv4.vs that affect packets (Documentation/networking/ipvs-sysctl.rst).
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

# With this bit as the highest, the upper threshold of a server of weight 0 is its deadline while it drains: the other
# bits are the low bits of Unix seconds. The kernel keeps the value, and ignores the thresholds of a server of weight 0.
DRAINING = 1 << 30
_DEADLINE_BITS = DRAINING - 1

PORT_MAX = 65535
FWMARK_MAX = 4294967295
WEIGHT_MAX = 65535
THRESHOLD_MAX = DRAINING - 1
# Seconds: IP_VS_TEMPLATE_TIMEOUT, 31 days and 15 days.
PERSISTENT_DEFAULT = 360
PERSISTENT_MAX = 2678400
# A service that is persistent for 0 seconds, as only netlink can set it; `persistent` 0 is one that is not persistent.
PERSISTENT_ZERO = -1
TIMEOUT_MAX = 1296000

ServiceKey = tuple[str, str, int]
ServerKey = tuple[str, int]


class Load(NamedTuple):
    """How many connections an IPVS server has, as its kernel counts them.

    TCP connections that are closing are inactive, and all flows of UDP. `persistent`: how many clients it is kept for.
    """

    active: int = 0
    inactive: int = 0
    persistent: int = 0

    @property
    def total(self) -> int:
        """Return all connections."""
        return self.active + self.inactive


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A real server. `port` 0 stands for the port of each packet, a threshold of 0 for none.

    `tun_type`, `tun_port` and `tun_checksum` matter only with a tunnel; other servers have the defaults, unless another
    program has set them. An observed server can have values that no manifest has, with which only netlink can set
    it: `forward` can be `localnode` or `bypass`, and what has no name is a decimal number.
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
        """Return the identity of the server within its service."""
        return (self.address, self.port)

    @property
    def deadline(self) -> int | None:
        """Return the low bits of the deadline, in Unix seconds, if the server drains; otherwise None."""
        draining = self.weight == 0 and DRAINING <= self.upper_threshold < 2 * DRAINING
        return self.upper_threshold & _DEADLINE_BITS if draining else None

    def draining(self, until: float) -> Server:
        """Return the server as it is while it drains until a deadline in Unix seconds."""
        return replace(self, weight=0, upper_threshold=DRAINING | (int(until) & _DEADLINE_BITS), lower_threshold=0)


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
    """Return the names of a scheduler's flags, in the order of their bits."""
    named = NAMED_SCHEDULER_FLAGS.get(scheduler, ())
    return named + SCHEDULER_FLAGS[len(named) :]


def due(deadline: int, now: float) -> int:
    """Return a deadline in Unix seconds. Only its low bits are known, so it is less than 17 years from now."""
    past = (int(now) - deadline) & _DEADLINE_BITS
    return int(now) - (past if past < DRAINING >> 1 else past - DRAINING)


def seconds_left(deadline: int, now: float) -> int:
    """Return the seconds until a deadline; 0 if it has passed."""
    return max(0, due(deadline, now) - int(now))


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A virtual service.

    `protocol` is one of PROTOCOLS or `fwmark`. For `fwmark`, `port` is the firewall mark, and `address` is `0.0.0.0` or
    `::` for its family. `persistent` is in seconds; 0: not persistent. `netmask` is as in ipvsadm (`255.255.255.0`, or
    `64` for IPv6); None: each client is persistent by itself.
    `ignore`: the fields of its servers that other programs may change; it is desired only, never observed. `marked`:
    whether the service has our mark; every desired service has it. `draining`: we have switched on the fallback flag of
    its scheduler while servers drain; it is then not among `scheduler_flags`.
    An observed service can have a protocol without a name, which is a decimal number, and `other_flags`: bits that no
    field has. These belong to other programs and stay through edits.
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
    draining: bool = False
    other_flags: int = field(default=0, compare=False)

    @property
    def key(self) -> ServiceKey:
        """Return the identity of the service in the kernel."""
        return (self.protocol, self.address, self.port)

    @property
    def is_ipv6(self) -> bool:
        """Return whether its family is IPv6."""
        return is_ipv6(self.address)

    @property
    def scheduler_module(self) -> str:
        """Return the kernel's module of its scheduler; "" for `none`, which is no scheduler (ip_vs_add_service)."""
        return "" if self.scheduler == "none" else f"ip_vs_{self.scheduler}"

    @property
    def kernel_flags(self) -> tuple[str, ...]:
        """Return the flags that its scheduler has in the kernel, in the order of their bits."""
        fallback = FALLBACK_FLAGS.get(self.scheduler)
        return (fallback, *self.scheduler_flags) if self.draining and fallback else self.scheduler_flags

    @property
    def refuses(self) -> bool:
        """Return whether its scheduler refuses clients of a server of weight 0 that another server could take."""
        return self.scheduler in FALLBACK_FLAGS and FALLBACK_FLAGS[self.scheduler] not in self.kernel_flags

    @property
    def has_draining(self) -> bool:
        """Return whether any of its servers drains."""
        return any(server.deadline is not None for server in self.servers)

    @property
    def can_drain(self) -> bool:
        """Return whether servers of it can have weight 0 without any client being refused that another could take."""
        return not self.while_draining().refuses

    def while_draining(self) -> Service:
        """Return the service as it must be while servers of it drain."""
        return replace(self, draining=True) if self.refuses and FALLBACK_FLAGS[self.scheduler] else self


class Timeouts(NamedTuple):
    """Seconds until the kernel forgets a silent connection; None leaves a timeout as it is."""

    tcp: int | None = None
    tcpfin: int | None = None
    udp: int | None = None


LEAVE_TIMEOUTS = Timeouts()


class Excluded(NamedTuple):
    """Services that reconciler must never touch: those with an address in a prefix, or that of a firewall mark."""

    prefix: str | None = None
    fwmark: int | None = None

    def covers(self, key: ServiceKey) -> bool:
        """Return whether this excludes a service."""
        protocol, address, port = key
        if protocol == FWMARK:
            return self.fwmark == port
        return self.prefix is not None and contains(self.prefix, address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipvs:
    """The section. `services`: None leaves them alone, () deletes those that are ours.

    `sysctls`: (name in net.ipv4.vs, value), sorted. `drain`: for at most so many seconds a removed server drains before
    it is deleted; 0: it is deleted at once. `guard`: `nft` or `services`;
    "": the best that the machine can have.
    """

    services: tuple[Service, ...] | None = None
    timeouts: Timeouts = LEAVE_TIMEOUTS
    sysctls: tuple[tuple[str, int], ...] = ()
    exclude: tuple[Excluded, ...] = ()
    drain: int = 0
    guard: str = ""

    @property
    def leaves_services(self) -> bool:
        """Return whether it is about settings alone. A section that asks for nothing is about all that there is."""
        return self.services is None and self != Ipvs()

    def excludes(self, key: ServiceKey) -> bool:
        """Return whether a service must not be touched."""
        return any(each.covers(key) for each in self.exclude)
