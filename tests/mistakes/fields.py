"""Mistakes in fields: typos, words of other programs, types, units, ranges."""

from __future__ import annotations

from tests.mistakes.manifest import IPVS, Row

ROWS: list[Row] = [
    Row(
        "section in the singular",
        "excellent",
        "interfaces:",
        "interface:",
        '5:1: interface: unknown field; did you mean "interfaces"?',
    ),
    Row(
        "letters missing",
        "excellent",
        "gateway: 192.0.2.1,",
        "gatway: 192.0.2.1,",
        '12:21: routes[0].gatway: unknown field; did you mean "gateway"?',
    ),
    Row(
        "upper and lower case",
        "excellent",
        "hwAddr:",
        "hwaddr:",
        '8:5: interfaces[0].hwaddr: unknown field; did you mean "hwAddr"?',
    ),
    Row(
        "apiVersion in lower case",
        "excellent",
        "apiVersion:",
        "apiversion:",
        '1:1: apiversion: unknown field; did you mean "apiVersion"?',
    ),
    Row(
        "ip route: via",
        "excellent",
        "gateway: 192.0.2.1,",
        "via: 192.0.2.1,",
        '12:21: routes[0].via: unknown field; did you mean "gateway"?',
    ),
    Row(
        "ip route: dev",
        "excellent",
        "device: eth0}",
        "dev: eth0}",
        '12:41: routes[0].dev: unknown field; did you mean "device"?',
    ),
    Row(
        "netplan: to",
        "excellent",
        "dest: default",
        "to: default",
        '12:6: routes[0].to: unknown field; did you mean "dest"?',
    ),
    Row("mac", "excellent", "hwAddr:", "mac:", '8:5: interfaces[0].mac: unknown field; did you mean "hwAddr"?'),
    Row("ip", "excellent", "addresses:", "ip:", '10:5: interfaces[0].ip: unknown field; did you mean "addresses"?'),
    Row(
        "name for sandbox",
        "excellent",
        "sandbox: web-1",
        "name: web-1",
        '2:1: name: unknown field; did you mean "sandbox"?',
    ),
    Row(
        "field of Kubernetes",
        "good",
        "sandbox: web-1",
        "kind: Sandbox\nsandbox: web-1",
        (
            "2:1: kind: unknown field; expected one of: apiVersion, sandbox, driver, sysctls, "
            "interfaces, neighbours, routes, rules, ipvs, checks, paused"
        ),
    ),
    Row(
        "field that a route does not have",
        "good",
        "device: eth0}\n  - {dest: 198",
        "device: eth0, expires: 60}\n  - {dest: 198",
        (
            "12:55: routes[0].expires: unknown field; expected one of: dest, gateway, device, onLink, "
            "type, nexthops, table, metric, source, mtu, mtuLock, advmss, window, hoplimit, initcwnd, "
            "initrwnd, rtoMin, quickack, congctl, features, scope, pref, tos"
        ),
    ),
    Row(
        "version of the future",
        "excellent",
        "reconciler/v1",
        "reconciler/v2",
        '1:13: apiVersion: "reconciler/v2" is not valid; expected reconciler/v1',
    ),
    Row(
        "version of Kubernetes",
        "good",
        "reconciler/v1",
        "v1",
        (
            " is not a manifest: that begins with `apiVersion: reconciler/v1`, or another of its "
            "fields; `reconciler import` converts files of other tools"
        ),
    ),
    Row(
        "no sandbox",
        "good",
        "sandbox: web-1\n",
        "",
        (
            "1:1: sandbox: missing; expected a sandbox ID or name: 1 to 64 letters, digits, '_', '-' "
            "and '.', the first a letter or digit"
        ),
    ),
    Row(
        "no driver",
        "excellent",
        "driver:\n  netns: {name: web-1}\n",
        "",
        "1:1: driver: missing; expected one driver and its address, such as {netns: {name: web-1}}",
    ),
    Row(
        "driver without address",
        "excellent",
        "driver:\n  netns: {name: web-1}",
        "driver: netns",
        ('3:9: driver: "netns" is text; expected one driver and its address, such as {netns: {name: web-1}}'),
    ),
    Row(
        "driver misspelt", "excellent", "netns: {", "netn: {", '4:3: driver.netn: unknown field; did you mean "netns"?'
    ),
    Row(
        "namespace as text",
        "excellent",
        "netns: {name: web-1}",
        "netns: web-1",
        (
            '4:10: driver.netns: "web-1" is text; expected a network namespace of this host: one of '
            "name, path and pid, such as {name: web-1}"
        ),
    ),
    Row(
        "two drivers",
        "good",
        "netns: {name: web-1}",
        "netns: {name: web-1}\n  vm: {name: web-1}",
        ("4:3: driver: a mapping with netns, vm; expected one driver and its address, such as {netns: {name: web-1}}"),
    ),
    Row(
        "agent without qmp",
        "good",
        "netns: {name: web-1}",
        "vm: {agent: /run/agent.sock}",
        (
            "5:1: interfaces: the machine has no monitor, so no NIC can be plugged into it; add qmp to the driver, or "
            "remove the interfaces: routes, rules, neighbours and IPVS can name NICs that the machine has"
        ),
    ),
    Row(
        "no MTU",
        "good",
        "    mtu: 1500\n",
        "",
        "6:5: interfaces[0].mtu: missing; expected an MTU from 46 to 9600 bytes",
    ),
    Row(
        "number in quotes",
        "excellent",
        "mtu: 1500",
        'mtu: "1500"',
        ('9:10: interfaces[0].mtu: "1500" is text; expected an MTU from 46 to 9600 bytes; write 1500 without quotes'),
    ),
    Row(
        "number with a unit",
        "good",
        "mtu: 1500",
        "mtu: 9k",
        '9:10: interfaces[0].mtu: "9k" is text; expected an MTU from 46 to 9600 bytes',
    ),
    Row(
        "number with a point",
        "good",
        "mtu: 1500",
        "mtu: 1500.5",
        '9:10: interfaces[0].mtu: "1500.5" is text; expected an MTU from 46 to 9600 bytes',
    ),
    Row(
        "MTU too large",
        "excellent",
        "mtu: 1500",
        "mtu: 64000",
        "9:10: interfaces[0].mtu: 64000 is above the maximum of 9600",
    ),
    Row(
        "metric below zero",
        "excellent",
        "device: eth0}\n  - {dest: 198",
        "device: eth0, metric: -1}\n  - {dest: 198",
        "12:63: routes[0].metric: -1 is below the minimum of 0",
    ),
    Row(
        "metric as a word",
        "good",
        "device: eth0}\n  - {dest: 198",
        "device: eth0, metric: high}\n  - {dest: 198",
        (
            '12:63: routes[0].metric: "high" is text; expected a metric from 0 to 4294967295, of '
            "which the lowest wins; for IPv6, 0 means 1024"
        ),
    ),
    Row(
        "table by its name",
        "good",
        "device: eth0}\n  - {dest: 198",
        "device: eth0, table: uplink}\n  - {dest: 198",
        (
            '12:62: routes[0].table: "uplink" is text; expected a routing table from 1 to 4294967295; '
            "254 is main, and 255 (local) takes only local and multicast routes"
        ),
    ),
    Row(
        "unknown type of route",
        "excellent",
        "device: eth0}\n  - {dest: 198",
        "device: eth0, type: reject}\n  - {dest: 198",
        (
            '12:61: routes[0].type: "reject" is not valid; expected a route type: one of unicast, '
            "blackhole, unreachable, prohibit, throw, local, multicast"
        ),
    ),
    Row(
        "yes for true",
        "good",
        "device: eth0}\n  - {dest: 198",
        "device: eth0, onLink: yes}\n  - {dest: 198",
        (
            '12:63: routes[0].onLink: "yes" is text; expected true or false: whether the gateway is '
            "on the link although no address or route covers it"
        ),
    ),
    Row(
        "true in quotes",
        "excellent",
        "device: eth0}\n  - {dest: 198",
        'device: eth0, onLink: "true"}\n  - {dest: 198',
        (
            '12:63: routes[0].onLink: "true" is text; expected true or false: whether the gateway is '
            "on the link although no address or route covers it; write true without quotes"
        ),
    ),
    Row(
        "one address in place of a list",
        "excellent",
        'addresses: [192.0.2.10/24, "2001:db8::10/64"]',
        "addresses: 192.0.2.10/24",
        ('10:16: interfaces[0].addresses: "192.0.2.10/24" is text; expected a list of addresses such as 172.16.0.3/16'),
    ),
    Row(
        "protocol that is none",
        "good",
        "tcp:",
        "http:",
        (
            "16:7: ipvs.services[0].http: unknown field; expected one of: tcp, udp, sctp, fwmark, "
            "family, scheduler, schedulerFlags, persistent, netmask, persistenceEngine, onePacket, "
            "ignore, servers"
        ),
        IPVS,
    ),
    Row(
        "scheduler in words",
        "excellent",
        "scheduler: rr",
        "scheduler: round-robin",
        (
            '17:18: ipvs.services[0].scheduler: "round-robin" is not valid; expected a scheduler: one'
            " of rr, wrr, lc, wlc, lblc, lblcr, dh, sh, mh, sed, nq, fo, ovf, twos"
        ),
        IPVS,
    ),
    Row(
        "forward of ipvsadm",
        "excellent",
        "weight: 100}",
        "weight: 100, forward: masq}",
        (
            '19:57: ipvs.services[0].servers[0].forward: "masq" is not valid; expected a forwarding '
            "method: one of nat, dr, tunnel"
        ),
        IPVS,
    ),
    Row(
        "weight as a percentage",
        "good",
        "weight: 100",
        "weight: 50%",
        (
            '19:43: ipvs.services[0].servers[0].weight: "50%" is text; expected a weight from 0 to '
            "65535; 0 means no new connections"
        ),
        IPVS,
    ),
    Row(
        "weight too large",
        "excellent",
        "weight: 100",
        "weight: 100000",
        "19:43: ipvs.services[0].servers[0].weight: 100000 is above the maximum of 65535",
        IPVS,
    ),
    Row(
        "seconds with a unit",
        "good",
        "scheduler: rr",
        "persistent: 5min",
        (
            '17:19: ipvs.services[0].persistent: "5min" is text; expected seconds from 1 to 2678400 '
            "for which a client stays with its server"
        ),
        IPVS,
    ),
    Row(
        "keepalived: persistence_timeout",
        "excellent",
        "scheduler: rr",
        "persistence: 300",
        '17:7: ipvs.services[0].persistence: unknown field; did you mean "persistent"?',
        IPVS,
    ),
    Row(
        "address of a server under another name",
        "excellent",
        "{address: 192.0.2.4:80",
        "{ip: 192.0.2.4:80",
        '19:12: ipvs.services[0].servers[0].ip: unknown field; did you mean "address"?',
        IPVS,
    ),
    Row(
        "services without their field",
        "good",
        "  services:\n",
        "",
        (
            "15:5: ipvs: a list of 1 item; expected a mapping with services, rules or rulesFile, and "
            "with timeouts, sysctls, exclude and drain"
        ),
        IPVS,
    ),
    Row(
        "services and rules",
        "good",
        "  services:\n",
        "  rules: |\n    -A -t 192.0.2.9:80\n  services:\n",
        "15:3: ipvs.rules: not allowed here; expected only one of services, rules and rulesFile",
        IPVS,
    ),
    Row(
        "sysctl misspelt",
        "excellent",
        "routes:",
        "sysctls: {net.ipv4.ip_forwarding: 1}\nroutes:",
        '11:11: sysctls.net.ipv4.ip_forwarding: unknown field; did you mean "net.ipv4.ip_forward"?',
    ),
    Row(
        "sysctl of something else",
        "good",
        "routes:",
        "sysctls: {kernel.hostname: web}\nroutes:",
        ("11:11: sysctls.kernel.hostname: unknown field; expected one of 100 names; `reconciler explain` has them"),
    ),
]
