"""What is wrong with sysctls."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest, neighbour, nic, route, with_nic

NIC4 = "addresses: [10.0.0.2/24]"
OFF = "which net.ipv6.conf.all.disable_ipv6 turns off"

ROWS: list[Row] = [
    (
        "sysctls are a list",
        manifest("sysctls: [net.ipv4.ip_forward]"),
        [
            (
                "bad.yaml:4:10: sysctls: a list of 1 item; "
                "expected a mapping of sysctls of the network of the sandbox, such as net.ipv4.ip_forward"
            )
        ],
    ),
    (
        "a sysctl that no list has",
        manifest("sysctls: {net.ipv4.ipforward: 1, kernel.panic: 1, net.ipv4.conf.eth0.rp_filter: 1}"),
        [
            'bad.yaml:4:11: sysctls.net.ipv4.ipforward: unknown field; did you mean "net.ipv4.ip_forward"?',
            (
                "bad.yaml:4:34: sysctls.kernel.panic: unknown field; "
                "expected one of 100 names; `reconciler explain` has them"
            ),
            (
                "bad.yaml:4:81: sysctls.net.ipv4.conf.eth0.rp_filter: 1 is not valid; "
                "expected its last part in `sysctls` of that interface"
            ),
        ],
    ),
    (
        "the second name of ip_forward",
        manifest("sysctls: {net.ipv4.conf.all.forwarding: 1}"),
        [
            (
                "bad.yaml:4:41: sysctls.net.ipv4.conf.all.forwarding: 1 is not valid; "
                "expected net.ipv4.ip_forward in its place: both are the same"
            )
        ],
    ),
    (
        "values out of their limits",
        manifest(
            "sysctls:",
            "  net.ipv4.ip_forward: 2",
            "  net.ipv4.ip_default_ttl: 0",
            "  net.ipv4.conf.all.rp_filter: 3",
            "  net.ipv6.conf.default.accept_source_route: -2",
            "  net.ipv6.conf.all.addr_gen_mode: 2",
            "  net.ipv6.conf.all.forwarding: true",
        ),
        [
            "bad.yaml:5:24: sysctls.net.ipv4.ip_forward: 2 is above the maximum of 1",
            "bad.yaml:6:28: sysctls.net.ipv4.ip_default_ttl: 0 is below the minimum of 1",
            "bad.yaml:7:32: sysctls.net.ipv4.conf.all.rp_filter: 3 is above the maximum of 2",
            "bad.yaml:8:46: sysctls.net.ipv6.conf.default.accept_source_route: -2 is below the minimum of -1",
            (
                "bad.yaml:9:36: sysctls.net.ipv6.conf.all.addr_gen_mode: 2 is not valid; "
                "expected 0, 1 or 3: addr_gen_mode for all interfaces"
            ),
            "bad.yaml:10:33: sysctls.net.ipv6.conf.all.forwarding: true is a boolean; expected 0 or 1",
        ],
    ),
    (
        "a name that both families have",
        with_nic("sysctls: {forwarding: 1, rpfilter: 1, rp_filter: 3}"),
        [
            (
                "bad.yaml:10:25: interfaces[0].sysctls.forwarding: 1 is not valid; "
                "expected ipv4.forwarding or ipv6.forwarding in its place"
            ),
            'bad.yaml:10:28: interfaces[0].sysctls.rpfilter: unknown field; did you mean "rp_filter"?',
            "bad.yaml:10:52: interfaces[0].sysctls.rp_filter: 3 is above the maximum of 2",
        ],
    ),
    (
        "an interface that the kernel has no sysctls for",
        with_nic("name: all", "sysctls: {rp_filter: 1}"),
        [
            (
                "bad.yaml:5:9: interfaces[0].name: the kernel has no sysctls for an interface named all; "
                "choose another name"
            )
        ],
    ),
    (
        "IPv6 with a small MTU",
        with_nic("mtu: 1000", NIC4, "sysctls: {rp_filter: 1, accept_ra: 0, ipv6.forwarding: 0}"),
        [
            (
                f"bad.yaml:10:{column}: interfaces[0].sysctls.{name}: is IPv6, which needs an MTU of at least 1280 "
                "(RFC 8200); this interface has 1000"
            )
            for column, name in ((27, "accept_ra"), (41, "ipv6.forwarding"))
        ],
    ),
    (
        "IPv6 that is off on the interface",
        manifest(
            nics=[nic("sysctls: {disable_ipv6: 1}")],
            neighbours=[neighbour(), neighbour("address: fd00::9")],
            routes=[route("dest: 2001:db8::/32", "gateway: fd00::1"), route()],
        ),
        [
            ("bad.yaml:9:28: interfaces[0].addresses[1]: fd00::2/64 is IPv6, which disable_ipv6 of eth0 turns off"),
            "bad.yaml:15:3: neighbours[1]: it is IPv6, which disable_ipv6 of eth0 turns off",
            "bad.yaml:19:3: routes[0]: it is IPv6, which disable_ipv6 of eth0 turns off",
        ],
    ),
    (
        "IPv6 that is off everywhere",
        manifest("sysctls: {net.ipv6.conf.all.disable_ipv6: 1}", nics=[nic()]),
        [f"bad.yaml:10:28: interfaces[0].addresses[1]: fd00::2/64 is IPv6, {OFF}"],
    ),
    (
        "sysctls by kata",
        manifest(
            "driver: {kata: {id: web-1}}",
            "sysctls: {net.ipv4.ip_forward: 1}",
            nics=[nic(NIC4, "sysctls: {rp_filter: 1}")],
        ),
        [
            "bad.yaml:4:32: sysctls.net.ipv4.ip_forward: kata-runtime cannot set sysctls",
            "bad.yaml:11:12: interfaces[0].sysctls: kata-runtime cannot set sysctls",
        ],
    ),
]
