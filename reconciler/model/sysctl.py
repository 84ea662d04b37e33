"""The sysctls of the network that a manifest can set: their names in a manifest and in the kernel.

A value is an integer; the schema has its limits. Sources: Documentation/networking/ip-sysctl.rst of the kernel,
net/ipv4/devinet.c and net/ipv6/addrconf.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from reconciler.values import NamedTuple

# (name, value), sorted. Of an interface, names are those of a manifest, such as `rp_filter`. Of a sandbox, they are
# those of sysctl(8), such as `net.ipv4.ip_forward`.
Sysctls: TypeAlias = tuple[tuple[str, int], ...]

# fmt: off
# net.ipv4.conf.NIC.*
IPV4 = (
    "accept_local", "accept_redirects", "accept_source_route", "arp_accept", "arp_announce", "arp_filter", "arp_ignore",
    "arp_notify", "bc_forwarding", "disable_policy", "disable_xfrm", "drop_gratuitous_arp",
    "drop_unicast_in_l2_multicast", "forwarding", "ignore_routes_with_linkdown", "log_martians", "promote_secondaries",
    "proxy_arp", "proxy_arp_pvlan", "route_localnet", "rp_filter", "secure_redirects", "send_redirects", "shared_media",
    "src_valid_mark",
)
# net.ipv6.conf.NIC.*
IPV6 = (
    "accept_dad", "accept_ra", "accept_ra_defrtr", "accept_ra_from_local", "accept_ra_mtu", "accept_ra_pinfo",
    "accept_redirects", "accept_source_route", "addr_gen_mode", "autoconf", "dad_transmits", "disable_ipv6",
    "disable_policy", "drop_unicast_in_l2_multicast", "drop_unsolicited_na", "enhanced_dad", "forwarding", "hop_limit",
    "ignore_routes_with_linkdown", "max_addresses", "ndisc_notify", "proxy_ndp", "router_solicitations", "use_tempaddr",
)
# Those that have no effect in net.*.conf.all, and net.ipv4.conf.all.forwarding, which is net.ipv4.ip_forward.
_NOT_FOR_ALL = {
    "ipv4": {"disable_policy", "disable_xfrm", "forwarding", "proxy_arp_pvlan"},
    "ipv6": set(IPV6) - {
        "accept_source_route", "addr_gen_mode", "disable_ipv6", "disable_policy", "enhanced_dad", "forwarding",
        "ignore_routes_with_linkdown", "proxy_ndp",
    },
}
_OTHERS = (
    "net.ipv4.fib_multipath_hash_policy", "net.ipv4.fib_multipath_use_neigh", "net.ipv4.fwmark_reflect",
    "net.ipv4.icmp_echo_ignore_all", "net.ipv4.icmp_echo_ignore_broadcasts",
    "net.ipv4.icmp_ignore_bogus_error_responses", "net.ipv4.ip_default_ttl", "net.ipv4.ip_forward",
    "net.ipv4.ip_forward_use_pmtu", "net.ipv4.ip_no_pmtu_disc", "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.tcp_fwmark_accept", "net.ipv4.tcp_l3mdev_accept", "net.ipv4.tcp_mtu_probing", "net.ipv4.tcp_syncookies",
    "net.ipv4.udp_l3mdev_accept", "net.ipv6.auto_flowlabels", "net.ipv6.bindv6only",
    "net.ipv6.fib_multipath_hash_policy", "net.ipv6.fwmark_reflect", "net.ipv6.icmp.echo_ignore_all",
    "net.ipv6.ip_nonlocal_bind",
)
# fmt: on
FAMILIES: Mapping[str, tuple[str, ...]] = {"ipv4": IPV4, "ipv6": IPV6}
# Names that say nothing about one interface.
NO_NICS = ("all", "default")

# Of an interface: name in a manifest → family and name in the kernel. Names that both families have carry theirs.
OF_NIC: Mapping[str, tuple[str, str]] = dict(
    sorted(
        (f"{family}.{name}" if name in IPV4 and name in IPV6 else name, (family, name))
        for family, names in FAMILIES.items()
        for name in names
    )
)
# Of a sandbox.
OF_SANDBOX = tuple(
    sorted(
        (
            *_OTHERS,
            *(
                f"net.{family}.conf.{scope}.{name}"
                for family, names in FAMILIES.items()
                for scope in NO_NICS
                for name in names
                if scope == "default" or name not in _NOT_FOR_ALL[family]
            ),
        )
    )
)
IP_FORWARD, IP_FORWARD6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
ALL_DISABLE_IPV6 = "net.ipv6.conf.all.disable_ipv6"


def full_name(nic: str, name: str) -> str:
    """Return the name for sysctl(8) of a sysctl of an interface, such as net.ipv4.conf.eth0.rp_filter.

    sysctl(8) takes slashes for dots, and dots for what they are, if a slash comes first.
    """
    return conf_name(*OF_NIC[name], nic)


def conf_name(family: str, name: str, nic: str) -> str:
    """Return the same for a name in the kernel."""
    parts = ("net", family, "conf", nic, name)
    return ("/" if "." in nic else ".").join(parts)


class Effect(NamedTuple):
    """Another sysctl that the kernel changes with one. `sure` False: it does so only in some cases."""

    name: str
    value: int
    sure: bool = True


def effects(name: str, value: int, links: Iterable[str]) -> Iterator[Effect]:
    """Yield what the kernel changes if a sysctl of a sandbox gets another value. `links`: all links in the sandbox."""
    if name == IP_FORWARD:
        # inet_forward_change
        yield Effect(conf_name("ipv4", "accept_redirects", "all"), int(not value))
        yield from (Effect(conf_name("ipv4", "forwarding", each), value) for each in ("default", *links))
    elif name.startswith("net.ipv4.conf.default."):
        # devinet_copy_dflt_conf: to all links that were never set by themselves
        short = name.rpartition(".")[2]
        yield from (Effect(conf_name("ipv4", short, each), value, sure=False) for each in links)
    elif name in _PASSED_ON:
        yield from (Effect(conf_name("ipv6", _PASSED_ON[name], each), value) for each in ("default", *links))


# addrconf_fixup_forwarding, addrconf_disable_ipv6, addrconf_fixup_linkdown, addrconf_sysctl_addr_gen_mode
_PASSED_ON = {
    conf_name("ipv6", name, "all"): name
    for name in ("forwarding", "disable_ipv6", "ignore_routes_with_linkdown", "addr_gen_mode")
}


def order(name: str) -> tuple[int, str]:
    """Return what to sort sysctls of a sandbox by: first what changes others, then what can be among these."""
    scope = 0 if name == IP_FORWARD or name in _PASSED_ON else 1 if ".conf.default." in name else 2
    return scope, name
