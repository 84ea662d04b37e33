"""IPVS sections as a manifest can have them: everything in canonical form, all that the schema allows."""

from __future__ import annotations

from hypothesis import strategies as st

from reconciler.model.ipvs import (
    DEFAULT_SCHEDULER,
    FORWARDS,
    FWMARK,
    NAMED_SCHEDULER_FLAGS,
    PROTOCOLS,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    SYSCTLS,
    Excluded,
    Ipvs,
    Server,
    Service,
    Timeouts,
)

IPV4 = ("172.17.0.4", "172.17.0.5", "10.0.0.1")
IPV6 = ("fd00::4", "2001:db8::5", "::ffff:10.0.0.1")
PORTS = (1, 80, 8080, 65535)
THRESHOLD_MAX = 1073741823
CHECKSUMS = {"ipip": ("none",), "gre": ("none", "csum"), "gue": ("none", "csum", "remcsum")}


@st.composite
def servers(draw: st.DrawFn, protocol: str, *, ipv6: bool, port: int) -> Server:
    """A server of a service."""
    forward = draw(st.sampled_from(FORWARDS))
    tunnel = forward == "tunnel"
    kind = draw(st.sampled_from(tuple(CHECKSUMS))) if tunnel else "ipip"
    upper = draw(st.sampled_from((0, 1, 1000, THRESHOLD_MAX)))
    own = 0 if protocol == FWMARK else port
    fixed = forward != "nat" and protocol != FWMARK
    return Server(
        address=draw(st.sampled_from(IPV6 if (draw(st.booleans()) if tunnel else ipv6) else IPV4)),
        port=own if fixed else draw(st.sampled_from((own, 0, *PORTS))),
        forward=forward,
        weight=draw(st.sampled_from((0, 1, 100, 65535))),
        upper_threshold=upper,
        lower_threshold=draw(st.integers(0, upper)),
        tun_type=kind,
        tun_port=draw(st.sampled_from(PORTS)) if kind == "gue" else 0,
        tun_checksum=draw(st.sampled_from(CHECKSUMS[kind])),
    )


@st.composite
def services(draw: st.DrawFn) -> Service:
    """A service with up to four servers."""
    protocol, ipv6 = draw(st.sampled_from((*PROTOCOLS, FWMARK))), draw(st.booleans())
    persistent = draw(st.sampled_from((0, 1, 300, 2678400)))
    ports = (1, 7, 4294967295) if protocol == FWMARK else (*PORTS, 0) if persistent else PORTS
    port = draw(st.sampled_from(ports))
    address = draw(st.sampled_from(IPV6 if ipv6 else IPV4))
    masks = ("1", "64", "127") if ipv6 else ("0.0.0.0", "255.255.255.0", "255.255.255.254")
    scheduler = draw(st.sampled_from((*SCHEDULERS, DEFAULT_SCHEDULER)))
    own = NAMED_SCHEDULER_FLAGS.get(scheduler, ())
    flags = draw(st.sets(st.sampled_from((*own, *SCHEDULER_FLAGS[len(own) :]))))
    return Service(
        protocol=protocol,
        address=("::" if ipv6 else "0.0.0.0") if protocol == FWMARK else address,
        port=port,
        scheduler=scheduler,
        scheduler_flags=tuple(flag for flag in (*own, *SCHEDULER_FLAGS) if flag in flags),
        persistent=persistent,
        netmask=draw(st.sampled_from((None, *masks))) if persistent else None,
        persistence_engine=draw(st.sampled_from((None, "sip"))) if persistent else None,
        one_packet=draw(st.booleans()) if protocol in {"udp", FWMARK} else False,
        servers=tuple(
            draw(st.lists(servers(protocol, ipv6=ipv6, port=port), max_size=4, unique_by=lambda server: server.key))
        ),
        ignore=draw(st.sampled_from(((), ("weight",)))),
    )


def sections() -> st.SearchStrategy[Ipvs]:
    """An IPVS section; nothing that it excludes is among its services."""
    some_seconds = st.none() | st.integers(1, 1296000)
    others = sorted({*SYSCTLS} - {"expire_nodest_conn"})
    values = st.dictionaries(st.sampled_from(others), st.sampled_from((0, 1, 2147483647)))
    excluded = [*(Excluded(prefix) for prefix in ("10.9.0.0/24", "fd09::/16", "192.0.2.1/32")), Excluded(fwmark=2)]
    return st.builds(
        Ipvs,
        services=st.none() | st.lists(services(), max_size=4, unique_by=lambda service: service.key).map(tuple),
        timeouts=st.builds(Timeouts, some_seconds, some_seconds, some_seconds),
        sysctls=values.map(lambda found: tuple(sorted(found.items()))),
        exclude=st.lists(st.sampled_from(excluded), unique=True).map(tuple),
        drain=st.sampled_from((0, 1, 2678400)),
        guard=st.sampled_from(("", "nft", "services")),
    )
