"""Services that are right and that a real kernel takes, from small pools: two tables often share keys and servers.

Each is in canonical form, as a manifest, a rules text and a kernel give it.
"""

from __future__ import annotations

from hypothesis import strategies as st

from reconciler.model.ipvs import (
    FWMARK,
    NAMED_SCHEDULER_FLAGS,
    PROTOCOLS,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    Server,
    Service,
    ServiceKey,
)

SERVICES_MAX = 6
SERVERS_MAX = 4

# `twos` is not in the kernels that the tests have.
KNOWN_SCHEDULERS = tuple(name for name in SCHEDULERS if name != "twos")
IPV4_SERVICES = ("10.10.0.1", "10.10.0.2", "192.0.2.7")
IPV6_SERVICES = ("fd00:10::1", "2001:db8::7")
IPV4_SERVERS = ("172.16.0.1", "172.16.0.2", "10.9.9.9")
IPV6_SERVERS = ("fd00:16::1", "fd00:16::2", "2001:db8:9::9")
SERVICE_PORTS = (1, 80, 443, 65535)
SERVER_PORTS = (0, 1, 80, 8080, 65535)
# A mark above 2^31 is written as a negative number by `ipvsadm -Sn`.
FWMARKS = (1, 7, 2147483647)
PERSISTENT = (1, 300, 2678400)
IPV4_NETMASKS = (None, "255.255.255.0", "255.255.0.0", "0.0.0.0")
IPV6_NETMASKS = (None, "64", "1", "127")
WEIGHTS = (0, 1, 2, 100, 65535)
THRESHOLDS = ((0, 0), (0, 0), (5, 0), (5, 5), (1073741823, 1), (1073741823, 1073741823))
# Of a tunnel: its type, port and checksum.
TUNNELS = (
    ("ipip", 0, "none"),
    ("gre", 0, "none"),
    ("gre", 0, "csum"),
    ("gue", 6080, "none"),
    ("gue", 1, "csum"),
    ("gue", 65535, "remcsum"),
)


@st.composite
def servers(draw: st.DrawFn, *, ipv6: bool, port: int | None) -> Server:
    """A server of a service of a family, and of a port; None: of a mark, which has none."""
    forward = draw(st.sampled_from(("nat", "nat", "dr", "tunnel")))
    pool: tuple[str, ...] = IPV6_SERVERS if ipv6 else IPV4_SERVERS
    upper, lower = draw(st.sampled_from(THRESHOLDS))
    kind, tun_port, checksum = TUNNELS[0]
    if forward == "tunnel":
        pool = IPV4_SERVERS + IPV6_SERVERS
        kind, tun_port, checksum = draw(st.sampled_from(TUNNELS))
    return Server(
        address=draw(st.sampled_from(pool)),
        port=draw(st.sampled_from(SERVER_PORTS)) if forward == "nat" or port is None else port,
        forward=forward,
        weight=draw(st.sampled_from(WEIGHTS)),
        upper_threshold=upper,
        lower_threshold=lower,
        tun_type=kind,
        tun_port=tun_port,
        tun_checksum=checksum,
    )


@st.composite
def keys(draw: st.DrawFn) -> ServiceKey:
    """A key of any protocol and family."""
    protocol = draw(st.sampled_from((*PROTOCOLS, FWMARK)))
    if protocol == FWMARK:
        return protocol, draw(st.sampled_from(("0.0.0.0", "::"))), draw(st.sampled_from(FWMARKS))
    return protocol, draw(st.sampled_from(IPV4_SERVICES + IPV6_SERVICES)), draw(st.sampled_from((0, *SERVICE_PORTS)))


@st.composite
def services_of(draw: st.DrawFn, key: ServiceKey) -> Service:
    """A service of a key, with servers. One of port 0 is persistent."""
    protocol, address, port = key
    ipv6 = ":" in address
    scheduler = draw(st.sampled_from(KNOWN_SCHEDULERS))
    named = NAMED_SCHEDULER_FLAGS.get(scheduler, ())
    flags = named + SCHEDULER_FLAGS[len(named) :]
    chosen = draw(st.sets(st.sampled_from(flags)))
    persistent = draw(st.sampled_from(PERSISTENT if port == 0 else (0, *PERSISTENT)))
    real = servers(ipv6=ipv6, port=None if protocol == FWMARK else port)
    return Service(
        protocol=protocol,
        address=address,
        port=port,
        scheduler=scheduler,
        scheduler_flags=tuple(flag for flag in flags if flag in chosen),
        persistent=persistent,
        netmask=draw(st.sampled_from(IPV6_NETMASKS if ipv6 else IPV4_NETMASKS)) if persistent else None,
        persistence_engine=draw(st.sampled_from((None, "sip"))),
        one_packet=protocol in {"udp", FWMARK} and draw(st.booleans()),
        servers=tuple(draw(st.lists(real, max_size=SERVERS_MAX, unique_by=lambda server: server.key))),
    )


@st.composite
def services(draw: st.DrawFn, *, most: int = SERVICES_MAX) -> list[Service]:
    """Services of different keys."""
    return [draw(services_of(key)) for key in draw(st.lists(keys(), max_size=most, unique=True))]
