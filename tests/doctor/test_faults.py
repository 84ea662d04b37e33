"""Each fault is named by its check; what `doctor` prints mends it, and then nothing is found any more."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.doctor.ward import Ward, made
from tests.host import Host


@pytest.fixture(scope="module")
def ward(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return made(host, tmp_path_factory.mktemp("manifests"))


class Fault(NamedTuple):
    """What is broken, and the checks that name it. `mend`: what ends it; None: what the first of them prints."""

    seed: str
    check: str
    about: str
    mend: str | None = None


FAULTS = [
    Fault("ip link set host-a down", "device-down", "a", None),
    Fault("ip link set host-b nomaster", "no-bridge", "b"),
    Fault(
        "ip link set br0 down",
        "bridge-blocked",
        "host",
        "ip link set br0 up; ip address replace 2001:db8::1/64 dev br0 nodad",
    ),
    Fault(
        "ip address del 2001:db8::1/64 dev br0", "gateway-nobody", "c", "ip address add 2001:db8::1/64 dev br0 nodad"
    ),
    Fault("ip link set host-a mtu 1400", "mtu-smaller", "a"),
    Fault("ip link set br0 mtu 1280", "mtu-smaller", "c"),
    Fault(
        "ip link set br0 type bridge stp_state 1; ip link set host-a nomaster; ip link set host-a master br0",
        "bridge-blocked",
        "a",
    ),
    Fault("bridge link set dev host-a bcast_flood off", "bridge-blocked", "a"),
    Fault("bridge link set dev host-a mcast_flood off", "bridge-blocked", "a"),
    Fault("bridge link set dev host-a learning on locked on", "bridge-blocked", "a"),
    Fault("bridge fdb replace 02:00:00:00:00:01 dev host-b master static sticky", "bridge-misled", "a"),
    Fault(
        "ip link add br1 type bridge; ip link set br1 up; ip link set host-b master br1",
        "gateway-elsewhere",
        "b",
    ),
    Fault("ip link set host-a arp off", "arp-off", "a"),
    Fault("ip -n a link set lo down", "loopback-down", "a"),
    Fault("ip -n a link set eth0 down", "nic-down", "a", ""),
    Fault("ip -n b address del 192.0.2.12/24 dev eth0", "address-lacking", "b", ""),
    Fault("ip -n b route del default", "default-lacking", "b", ""),
    Fault("ip -n b route add blackhole 203.0.113.0/24", "rejected", "b"),
    Fault("ip -n b -6 route add unreachable 2001:db8:1::/48", "rejected", "b"),
    Fault("ip -n b rule add from 203.0.113.1 prohibit", "rejected", "b"),
    Fault(
        "ip -n a rule add priority 10 from all lookup 99; ip -n a route add default dev lo table 99",
        "route-shadowed",
        "a",
        "ip -n a rule del priority 10; ip -n a route flush table 99",
    ),
    Fault("ip -n a rule del priority 32766", "route-shadowed", "a", "ip -n a rule add priority 32766 lookup main"),
    Fault("sysctl -qw net.ipv4.conf.br0.forwarding=0", "host-forwarding", "b"),
    Fault(
        "ip netns exec a iptables -A OUTPUT -p icmp -j DROP; ip netns exec a ping -c 1 -W 0.1 192.0.2.1 || :",
        "firewall-drops",
        "a",
        "ip netns exec a iptables -F",
    ),
    Fault("ip -n b rule add from 203.0.113.0/24 lookup 77", "rule-empty", "b", "ip -n b rule del lookup 77"),
    Fault(
        "ip -n b route add 203.0.113.0/24 via 192.0.2.1 table 77", "table-unread", "b", "ip -n b route flush table 77"
    ),
    Fault("ip route add 203.0.113.0/24 via 192.0.2.11 table 78", "table-unread", "host", "ip route flush table 78"),
    Fault("ip route add 192.0.2.12/32 dev host-c2", "host-route", "b"),
    Fault("ip route add blackhole 192.0.2.11/32", "host-route", "a"),
    Fault("sysctl -qw net.ipv4.ip_forward=0", "host-forwarding", "a"),
    Fault("sysctl -qw net.ipv6.conf.all.forwarding=0", "host-forwarding", "c"),
    Fault("ip address del 192.0.2.1/24 dev br0", "gateway-nobody", "a", "ip address add 192.0.2.1/24 dev br0"),
    Fault(
        "ip address del 192.0.2.1/24 dev br0; ip address add 192.0.2.1/25 dev br0",
        "prefix-differs",
        "a",
        "ip address del 192.0.2.1/25 dev br0; ip address add 192.0.2.1/24 dev br0",
    ),
    Fault("ip -n b address add 192.0.2.11/24 dev eth0 nodad", "address-twice", "b", ""),
    Fault("ip -n b address add 192.0.2.1 peer 198.51.100.77/32 dev eth0", "address-of-host", "b"),
    Fault("ip -n b link set eth0 address 02:00:00:00:00:01", "mac-twice", "b", ""),
    Fault(
        "ip -n a neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent", "neighbour-wrong", "a"
    ),
    Fault(
        "ip -n a neighbour replace 192.0.2.12 lladdr 02:00:00:00:00:98 dev eth0 nud permanent", "neighbour-wrong", "a"
    ),
    Fault("ip neighbour replace 192.0.2.12 lladdr 02:00:00:00:00:99 dev br0 nud permanent", "neighbour-wrong", "b"),
    Fault(
        "ip netns exec b ip neighbour replace 192.0.2.1 dev eth0 nud failed",
        "gateway-silent",
        "b",
        "ip -n b neighbour flush all",
    ),
    Fault("ip netns exec b sysctl -qw net.ipv4.conf.eth0.arp_ignore=8", "arp-silent", "b"),
    Fault("ip netns exec b sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1", "ipv6-off", "b"),
    Fault(
        "ip -n b address add 2001:db8::11/64 dev eth0; "
        "for i in $(seq 100); do ip -n b -6 address show dadfailed | grep -q . && break; sleep 0.1; done",
        "address-duplicate address-twice",
        "b",
        "ip -n b address del 2001:db8::11/64 dev eth0",
    ),
    Fault(
        "ip -n a route add 203.0.113.0/24 via 192.0.2.77; ip -n a address add 192.0.2.77/24 dev eth0",
        "gateway-own",
        "a",
        "ip -n a address del 192.0.2.77/24 dev eth0; ip -n a route del 203.0.113.0/24",
    ),
    Fault(
        "ip -n a address flush dev eth0 scope global",
        "address-none address-lacking gateway-off-link default-lacking drift",
        "a",
        "",
    ),
    Fault(
        "mkdir -p /etc/reconciler; echo 'drivers: [vm]' > /etc/reconciler/policy.yaml",
        "sandbox-refused",
        "c",
        "rm /etc/reconciler/policy.yaml",
    ),
    Fault(
        "mkdir -p /etc/reconciler; echo 'foo: 1' > /etc/reconciler/policy.yaml",
        "policy-wrong",
        "policy",
        "rm /etc/reconciler/policy.yaml",
    ),
    Fault("chmod 0755 /run/reconciler", "folder-open", "host"),
    Fault("ip netns exec b sysctl -qw net.ipv4.ip_default_ttl=3", "ttl-low", "b"),
    Fault(
        "ip netns exec c sysctl -qw net.ipv4.conf.eth1.rp_filter=1; ip -n c route add 203.0.113.0/24 via 198.51.100.1 "
        "metric 9; ip -n c route add 203.0.113.0/24 via 192.0.2.1",
        "rp-filter",
        "c",
        "ip netns exec c sysctl -qw net.ipv4.conf.eth1.rp_filter=0; ip -n c route del 203.0.113.0/24; "
        "ip -n c route del 203.0.113.0/24",
    ),
    Fault(
        "sysctl -qw net.ipv4.conf.br0.rp_filter=1; ip route add 192.0.2.11/32 dev host-c2",
        "rp-filter",
        "a",
        "sysctl -qw net.ipv4.conf.br0.rp_filter=0; ip route del 192.0.2.11/32",
    ),
    Fault("ip netns exec b iptables -P INPUT DROP", "firewall-closed", "b"),
    Fault("iptables -A FORWARD -s 192.0.2.12 -j DROP", "firewall-drops", "b"),
    Fault(
        "ip netns exec b iptables -N deep; ip netns exec b iptables -A OUTPUT -j deep; "
        "ip netns exec b iptables -A deep -j DROP",
        "firewall-closed",
        "b",
        "ip netns exec b iptables -F; ip netns exec b iptables -X",
    ),
    Fault("iptables -A INPUT -j REJECT", "firewall-closed", "host"),
    Fault("ip -n a route add 203.0.113.0/24 via 192.0.2.12", "forwarding-off", "b", "ip -n a route del 203.0.113.0/24"),
]


def test_a_host_that_is_well_has_no_finding(ward: Ward) -> None:
    said = ward.doctor()
    assert (said.code, said.data["findings"], said.data["unknown"]) == (0, [], [])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.seed[:60])
def test_a_fault_is_named_and_mended(ward: Ward, fault: Fault) -> None:
    ward.sh(fault.seed)
    first, *_ = checks = fault.check.split()
    # The kernel finishes some of it a moment later.
    said = ward.await_doctor(lambda said: {(check, fault.about) for check in checks} <= said.found)
    assert said.code == 1
    for command in said.commands(first) if fault.mend is None else [fault.mend]:
        ward.sh(command)
    ward.apply()
    assert ward.await_doctor(lambda said: not said.data["findings"]).code == 0
