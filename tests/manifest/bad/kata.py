"""What is wrong with the address of a container behind kata-runtime, and what its commands cannot set or report."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest

ID = "the ID of a container: 1 to 64 letters, digits, '_', '-' and '.', the first a letter or digit"
RUNTIME = "the absolute path of the program kata-runtime: at most 4095 printable ASCII characters"
HEAD = "driver: {kata: {id: 6ec7a98}}"
NIC = "{name: eth0, device: tap0, hwAddr: '02:42:20:6f:a3:69', mtu: 1500"
CANNOT = "kata-runtime cannot set"


def with_interface(fields: str) -> str:
    return manifest(HEAD, "interfaces:", f"- {NIC}, {fields}}}")


def with_route(fields: str) -> str:
    nic = f"interfaces: [{NIC}, addresses: [10.0.0.2/16]}}]"
    return manifest(HEAD, nic, "routes:", f"- {{dest: 10.8.0.0/16, device: eth0, {fields}}}")


def with_service(fields: str) -> str:
    return manifest(HEAD, "ipvs:", "  services:", f"  - {{{fields}}}")


def with_server(fields: str) -> str:
    return with_service(f"tcp: '10.0.0.1:80', servers: [{{address: 10.0.0.9, {fields}}}]")


ROWS: list[Row] = [
    (
        "kata without an id",
        manifest("driver: {kata: {}}"),
        [f"bad.yaml:3:16: driver.kata.id: missing; expected {ID}"],
    ),
    (
        "kata id with an option in it",
        manifest("driver: {kata: {id: --debug}}"),
        [f'bad.yaml:3:21: driver.kata.id: "--debug" is not valid; expected {ID}'],
    ),
    (
        "kata runtime by its name",
        manifest("driver: {kata: {id: a, runtime: kata-runtime}}"),
        [f'bad.yaml:3:33: driver.kata.runtime: "kata-runtime" is not valid; expected {RUNTIME}'],
    ),
    (
        "two addresses by kata",
        with_interface("addresses: [10.0.0.2/16, 10.0.0.3/16]"),
        ["bad.yaml:5:81: interfaces[0].addresses: kata-runtime supports only one address per interface"],
    ),
    (
        "no address detection by kata",
        with_interface("addresses: [{address: 'fd00::2/64', dad: false}]"),
        ["bad.yaml:5:81: interfaces[0].addresses: kata-runtime cannot skip duplicate address detection"],
    ),
    (
        "a peer and an interface that is down by kata",
        with_interface("addresses: [{address: 10.0.0.2, peer: 10.0.0.9/32}], state: down"),
        [
            (
                "bad.yaml:5:81: interfaces[0].addresses: kata-runtime cannot set anything of an address but the "
                "address itself"
            ),
            "bad.yaml:5:130: interfaces[0].state: kata-runtime cannot set an interface down",
        ],
    ),
    (
        "a connected route by kata",
        manifest(
            HEAD,
            f"interfaces: [{NIC}, addresses: [10.0.0.2/16]}}]",
            "routes:",
            "- {dest: 10.0.0.0/16, device: eth0}",
        ),
        [
            (
                "bad.yaml:6:10: routes[0].dest: the kernel adds this route by itself for the interface's address, "
                "and kata-runtime does not list it; remove it from the manifest"
            )
        ],
    ),
    ("a metric by kata", with_route("metric: 5"), [f"bad.yaml:6:45: routes[0].metric: {CANNOT} metric"]),
    ("a table by kata", with_route("table: 5"), [f"bad.yaml:6:44: routes[0].table: {CANNOT} table"]),
    ("a source by kata", with_route("source: 10.0.0.2"), [f"bad.yaml:6:45: routes[0].source: {CANNOT} source"]),
    ("a path MTU by kata", with_route("mtu: 1400"), [f"bad.yaml:6:42: routes[0].mtu: {CANNOT} mtu"]),
    ("a segment size by kata", with_route("advmss: 1400"), [f"bad.yaml:6:45: routes[0].advmss: {CANNOT} advmss"]),
    (
        "a gateway on the link by kata",
        with_route("gateway: 10.9.0.1, onLink: true"),
        [f"bad.yaml:6:64: routes[0].onLink: {CANNOT} onLink"],
    ),
    (
        "next hops by kata",
        manifest(
            HEAD,
            f"interfaces: [{NIC}, addresses: [10.0.0.2/16]}}]",
            "routes:",
            "- dest: 10.8.0.0/16",
            "  nexthops: [{gateway: 10.0.0.1, device: eth0}, {gateway: 10.0.0.3, device: eth0}]",
        ),
        ["bad.yaml:7:13: routes[0].nexthops: kata-runtime supports only one next hop per route"],
    ),
    (
        "a blackhole by kata",
        manifest(HEAD, "routes:", "- {dest: 10.8.0.0/16, type: blackhole}"),
        ["bad.yaml:5:29: routes[0].type: kata-runtime does not support blackhole routes"],
    ),
    (
        "neighbours and rules by kata",
        manifest(
            HEAD, "neighbours: [{address: 10.0.0.1, device: eth0, proxy: true}]", "rules: [{priority: 1, table: 7}]"
        ),
        [
            "bad.yaml:4:13: neighbours: kata-runtime has no commands for neighbours",
            "bad.yaml:5:8: rules: kata-runtime has no commands for policy rules",
        ],
    ),
    (
        "settings of IPVS by kata",
        manifest(HEAD, "ipvs: {timeouts: {tcp: 1}, sysctls: {conntrack: 1}, drain: 5}"),
        [
            (
                "bad.yaml:4:18: ipvs.timeouts: kata-runtime cannot report timeouts, so they could not be verified; "
                "set them by hand: kata-ipvs ipvsadm --set"
            ),
            "bad.yaml:4:37: ipvs.sysctls: kata-runtime cannot set sysctls",
            "bad.yaml:4:60: ipvs.drain: kata-runtime cannot report how many connections a server still has",
        ],
    ),
    (
        "a service of SCTP by kata",
        with_service("sctp: '10.0.0.1:80'"),
        ["bad.yaml:6:12: ipvs.services[0].sctp: kata-runtime supports only TCP and UDP services"],
    ),
    (
        "a scheduler by kata",
        with_service("tcp: '10.0.0.1:80', scheduler: mh"),
        [
            (
                "bad.yaml:6:37: ipvs.services[0].scheduler: kata-runtime does not support mh; "
                "expected one of: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq"
            )
        ],
    ),
    (
        "a netmask by kata",
        with_service("tcp: '10.0.0.1:80', persistent: 5, netmask: 255.255.0.0"),
        [f"bad.yaml:6:50: ipvs.services[0].netmask: {CANNOT} netmask"],
    ),
    (
        "a tunnel by kata",
        with_server("forward: tunnel"),
        ["bad.yaml:6:65: ipvs.services[0].servers[0].forward: kata-runtime cannot report the type of a tunnel"],
    ),
    (
        "a threshold by kata",
        with_server("upperThreshold: 5"),
        ["bad.yaml:6:72: ipvs.services[0].servers[0].upperThreshold: kata-runtime cannot report upperThreshold"],
    ),
    (
        "a container by kata twice",
        manifest(HEAD) + "\n---\n" + manifest(HEAD, "sandbox: other"),
        ["bad.yaml:8:21: driver.kata.id: 6ec7a98 is the container of sandbox web-1 already, in bad.yaml"],
    ),
]
