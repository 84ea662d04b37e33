"""What is imported from another notation is in a real namespace what that notation says: `ip` compares.

One namespace is made by `ip` commands that were written by hand, another one by `apply` of what was imported.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.manifest.dump import dump
from reconciler.manifest.load import load
from reconciler.manifest.sandbox import write
from tests.conftest import Kernel, ip

MAC = "02:42:20:6f:a3:69"
# What is ours is marked by a protocol, and what has no carrier yet by a flag.
STATE = {"protocol", "flags", "dadfailed", "tentative", "deprecated"}


class Pair:
    """A namespace of each kind, `oracle` made by `ip` and `ours` by reconciler, with a NIC for each."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.folder = folder
        self.oracle, self.ours = kernel.namespace(), kernel.namespace()
        self.device, self._peer = kernel.veth()
        other, other_peer = kernel.veth()
        ip("link", "set", other, "netns", self.oracle, "name", "eth0")
        ip("link", "set", other_peer, "up")
        ip("link", "set", self._peer, "up")
        for name in (self.oracle, self.ours):
            for sysctl in ("accept_dad", "accept_ra"):
                ip("netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.default.{sysctl}=0")
            ip("netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0" if name == self.oracle else
               "net.ipv6.conf.all.accept_ra=0")  # fmt: skip
            ip("link", "set", "lo", "up", namespace=name)

    def make(self, commands: str, ipv6: str = "") -> None:
        """Run commands of `ip`, and of `ip -6`, in the namespace that shows what is right."""
        ip("-batch", "-", namespace=self.oracle, stdin=commands)
        ip("-6", "-batch", "-", namespace=self.oracle, stdin=ipv6)

    def listing(self, namespace: str, *words: str) -> str:
        return ip("-j", *words, namespace=namespace)

    def dump(self, namespace: str, *, detailed: bool = True) -> list[str]:
        """Write what `ip -j` lists of a namespace to files; return their names."""
        details = ["-d"] if detailed else []
        files = []
        for number, words in enumerate(
            (
                (*details, "link"),
                (*details, "addr"),
                (*details, "route", "show", "table", "all"),
                ("rule",),
                ("-6", "rule"),
                ("neigh",),
                ("neigh", "show", "proxy"),
            )
        ):
            file = self.folder / f"{namespace}-{number}.json"
            file.write_text(self.listing(namespace, *words))
            files.append(str(file))
        return files

    def seen(self, namespace: str) -> dict[str, Any]:
        """Return what `ip -d -j` shows of a namespace, but for what two namespaces cannot have in common."""
        links = json.loads(self.listing(namespace, "-d", "addr", "show", "dev", "eth0"))
        (link,) = [each for each in links if each]
        routes = json.loads(self.listing(namespace, "-d", "route", "show", "table", "all"))
        rules = [json.loads(self.listing(namespace, family, "rule")) for family in ("-4", "-6")]
        neighbours = [json.loads(self.listing(namespace, "neigh", *words)) for words in ((), ("show", "proxy"))]
        return {
            "link": {key: link[key] for key in ("mtu", "address", "ifname")} | {"up": "UP" in link["flags"]},
            "addresses": _bare(link["addr_info"]),
            "routes": _bare(routes),
            "rules": [_bare(each) for each in rules],
            "neighbours": [_bare(each) for each in neighbours],
        }


def _bare(items: Any) -> list[str]:
    """Return objects as sorted texts, without what is state."""
    return sorted(json.dumps(_stripped(each), sort_keys=True) for each in items)


def _stripped(item: Any) -> Any:
    if isinstance(item, list):
        return [_stripped(each) for each in item]
    if not isinstance(item, dict):
        return item
    kept = {key: _stripped(value) for key, value in item.items() if key not in STATE}
    return kept | {"onlink": True} if "onlink" in (item.get("flags") or []) else kept


@pytest.fixture
def pair(kernel: Kernel, tmp_path: Path) -> Pair:
    return Pair(kernel, tmp_path)


def imported(pair: Pair, *files: str, device: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return the data of the manifest that files become, and the lines about what is left out.

    `device`: that of the host, which no file knows.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["import", "--sandbox", "box", "--netns", pair.ours, *files])
    assert code == 0, err.getvalue()
    file = pair.folder / "imported.yaml"
    text = out.getvalue()
    if device:
        assert text.count("device: eth0") >= 1
        text = text.replace("name: eth0\n  device: eth0", f"name: eth0\n  device: {device}")
        text = text.replace("name: eth0, device: eth0", f"name: eth0, device: {device}")
    file.write_text(text)
    (manifest,) = load([str(file)])
    return write(manifest.sandbox), err.getvalue().splitlines()


def apply(pair: Pair, data: dict[str, Any]) -> None:
    file = pair.folder / "applied.yaml"
    file.write_text(dump([data]))
    assert main(["apply", str(file)]) == 0
    assert main(["diff", str(file)]) == 0


def shown(pair: Pair, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what `show` prints of the namespace of ours."""
    capsys.readouterr()
    assert main(["show", str(pair.folder / "applied.yaml")]) == 0
    file = pair.folder / "shown.yaml"
    file.write_text(capsys.readouterr().out)
    (manifest,) = load([str(file)])
    return write(manifest.sandbox)


def without_order(data: Any) -> Any:
    """Return data with sorted lists: the kernel lists IPv6 addresses newest first."""
    if isinstance(data, dict):
        return {key: without_order(value) for key, value in data.items()}
    if isinstance(data, list):
        return sorted((without_order(each) for each in data), key=lambda item: json.dumps(item, sort_keys=True))
    return data


LINK = f"link set eth0 up mtu 1400 address {MAC}\n"
IPV4 = (
    LINK
    + """\
addr add 192.0.2.10/24 dev eth0
addr add 192.0.2.11/24 dev eth0
addr add 198.51.100.1/32 dev eth0
addr add 2001:db8::10/64 dev eth0 nodad
addr add 2001:db8:1::10/64 dev eth0
route add default via 192.0.2.1
route add default via 192.0.2.2 metric 100
route add 203.0.113.0/24 via 192.0.2.3 table 100 metric 5 mtu 1300 advmss 1200 src 192.0.2.11
route add 203.0.113.64/26 dev eth0
route add 203.0.113.128/25 nexthop via 192.0.2.2 weight 3 nexthop via 192.0.2.5 dev eth0
route add 10.3.0.0/16 via 203.0.113.200 dev eth0 onlink proto static
route add blackhole 10.9.0.0/16
route add unreachable default table 200
route add prohibit 10.10.0.0/16 metric 7
rule add from 192.0.2.0/24 table 100 priority 100
rule add fwmark 0x10/0xff prohibit priority 110
rule add not to 192.0.2.1 iif eth0 goto 200 priority 120
rule add ipproto tcp sport 80 dport 1-9 uidrange 1-2 tos 0x10 table 7 priority 200 suppress_prefixlength 0
rule add oif eth0 l3mdev priority 300
rule add fwmark 5 lookup main
neigh add 192.0.2.1 lladdr 02:42:20:6f:a3:01 dev eth0
neigh add 2001:db8::1 lladdr 02:42:20:6f:a3:01 dev eth0 router
neigh add 2001:db8::77 lladdr 02:42:20:6f:a3:77 dev eth0
neigh add proxy 192.0.2.77 dev eth0
neigh add 192.0.2.5 lladdr 02:42:20:6f:a3:05 dev eth0 nud stale
"""
)
IPV6 = """\
route add 2001:db8:8::/48 via 2001:db8::1
route add 2001:db8:9::/48 via fe80::1 dev eth0 metric 50 mtu 1280
route add default via 2001:db8::1 dev eth0 table 100
route add default dev eth0 table 9 metric 3
route add 2001:db8:a::/48 nexthop via 2001:db8::2 dev eth0 nexthop via 2001:db8::3 dev eth0 weight 2
route add unreachable 2001:db8:b::/48
route add blackhole default table 300 metric 1
rule add from 2001:db8::/32 table 100 priority 100
rule add fwmark 6 prohibit
"""


@pytest.mark.parametrize("detailed", [True, False])
def test_a_namespace_made_by_ip(pair: Pair, detailed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    pair.make(IPV4, IPV6)
    before = pair.seen(pair.oracle)
    data, left_out = imported(pair, *pair.dump(pair.oracle, detailed=detailed), device=pair.device)
    assert [line.partition(": ")[2] for line in left_out if "kernel makes" not in line and "of links" not in line] == [
        "eth0: no file says its device on the host (device: eth0 is assumed)",
        "not imported: neighbours that the kernel has learned: 1",
    ]
    apply(pair, data)
    after = pair.seen(pair.ours)
    before["neighbours"][0] = [each for each in before["neighbours"][0] if "PERMANENT" in each]
    assert after == before
    # What is ours is imported as it is shown; the alias has the device of the host.
    again, _ = imported(pair, *pair.dump(pair.ours, detailed=detailed))
    assert without_order(again) == without_order(shown(pair, capsys)) == without_order(data)


def check(pair: Pair, files: Sequence[str]) -> list[str]:
    """Apply what files become; it must be what the oracle is. Return the lines about what is left out."""
    data, left_out = imported(pair, *files, device=pair.device)
    apply(pair, data)
    assert pair.seen(pair.ours) == pair.seen(pair.oracle)
    return left_out


NETPLAN = """\
network:
  version: 2
  renderer: networkd
  ethernets:
    eth0:
      macaddress: 02:42:20:6f:a3:69
      mtu: 1400
      dhcp4: no
      accept-ra: no
      addresses: [192.0.2.10/24, "2001:db8::10/64", 198.51.100.1/32]
      routes:
        - {to: default, via: 192.0.2.1}
        - {to: default, via: "2001:db8::1", metric: 50}
        - {to: 203.0.113.7/24, via: 192.0.2.2, metric: 100, mtu: 1300, from: 198.51.100.1}
        - {to: 203.0.113.9, via: 203.0.114.1, on-link: true, table: 100}
        - {to: 198.51.100.128/25}
        - {to: 10.9.0.0/16, type: blackhole}
        - {to: "2001:db8:9::/48", type: unreachable, metric: 7}
        - {to: 0.0.0.0/0, via: 192.0.2.3, table: 101, advertised-mss: 1200}
      routing-policy:
        - {from: 192.0.2.0/24, table: 100}
        - {from: 192.0.2.10, to: 10.0.0.0/8, mark: 16, priority: 50, type-of-service: 16}
        - {to: "2001:db8:8::/48", table: 101}
"""
NETPLAN_IPV4 = (
    LINK
    + """\
addr add 192.0.2.10/24 dev eth0
addr add 2001:db8::10/64 dev eth0
addr add 198.51.100.1/32 dev eth0
route add default via 192.0.2.1
route add 203.0.113.0/24 via 192.0.2.2 metric 100 mtu 1300 src 198.51.100.1
route add 203.0.113.9 via 203.0.114.1 dev eth0 onlink table 100
route add 198.51.100.128/25 dev eth0
route add blackhole 10.9.0.0/16
route add default via 192.0.2.3 table 101 advmss 1200
rule add from 192.0.2.0/24 table 100
rule add from 192.0.2.10 to 10.0.0.0/8 fwmark 16 priority 50 tos 0x10 table main
"""
)
NETPLAN_IPV6 = """\
route add default via 2001:db8::1 metric 50
route add unreachable 2001:db8:9::/48 metric 7
rule add to 2001:db8:8::/48 table 101
"""


def test_netplan(pair: Pair) -> None:
    pair.make(NETPLAN_IPV4, NETPLAN_IPV6)
    (pair.folder / "netplan.yaml").write_text(NETPLAN)
    check(pair, [str(pair.folder / "netplan.yaml")])


NETWORK = """\
[Match]
Name=eth0
[Link]
MTUBytes=1400
[Network]
Address=192.0.2.250/24
Gateway=192.0.2.250
Address=
Gateway=
Gateway=192.0.2.1
IPv6AcceptRA=no
[Address]
Address=2001:db8::10/64
DuplicateAddressDetection=none
[Address]
Address=198.51.100.1
[Route]
Destination=203.0.113.7/24
Gateway=192.0.2.2
Metric=1
Metric=100
MTUBytes=1300
PreferredSource=198.51.100.1
[Route]
Gateway=2001:db8::1
[Route]
Gateway=203.0.114.1
GatewayOnLink=yes
Table=100
[Route]
Destination=198.51.100.128/25
[Route]
Destination=10.9.0.0/16
Type=prohibit
Table=main
[Route]
Destination=10.8.0.0/16
MultiPathRoute=192.0.2.3 5
MultiPathRoute=192.0.2.4@eth0
[RoutingPolicyRule]
FirewallMark=0x10/0xff
Family=both
Table=100
Priority=70
[RoutingPolicyRule]
To=10.0.0.0/8
IPProtocol=udp
DestinationPort=53-54
User=1000-1999
IncomingInterface=eth0
InvertRule=yes
Type=unreachable
[Neighbor]
Address=192.0.2.9
LinkLayerAddress=02:42:20:6f:a3:09
"""
DROPIN = """\
# It adds to what is above.
[Network]
Address=192.0.2.10/24
[Link]
MACAddress=02:42:20:6F:A3:69
"""
NETWORK_IPV4 = (
    LINK
    + """\
addr add 192.0.2.10/24 dev eth0
addr add 2001:db8::10/64 dev eth0 nodad
addr add 198.51.100.1/32 dev eth0
route add default via 192.0.2.1
route add 203.0.113.0/24 via 192.0.2.2 metric 100 mtu 1300 src 198.51.100.1
route add default via 203.0.114.1 dev eth0 onlink table 100
route add 198.51.100.128/25 dev eth0
route add prohibit 10.9.0.0/16
route add 10.8.0.0/16 nexthop via 192.0.2.3 weight 5 nexthop via 192.0.2.4
rule add fwmark 0x10/0xff table 100 priority 70
rule add not to 10.0.0.0/8 ipproto udp dport 53-54 uidrange 1000-1999 iif eth0 unreachable
neigh add 192.0.2.9 lladdr 02:42:20:6f:a3:09 dev eth0
"""
)
NETWORK_IPV6 = """\
route add default via 2001:db8::1
rule add fwmark 0x10/0xff table 100 priority 70
"""


def test_networkd(pair: Pair) -> None:
    pair.make(NETWORK_IPV4, NETWORK_IPV6)
    file = pair.folder / "10-eth0.network"
    file.write_text(NETWORK)
    Path(f"{file}.d").mkdir()
    (Path(f"{file}.d") / "50-address.conf").write_text(DROPIN)
    check(pair, [str(file)])


NMSTATE = """\
---
interfaces:
- name: eth0
  type: ethernet
  state: up
  mac-address: 02:42:20:6F:A3:69
  mtu: 1400
  ipv4:
    enabled: true
    dhcp: false
    address: [{ip: 192.0.2.10, prefix-length: 24}, {ip: 198.51.100.1, prefix-length: "32"}]
  ipv6:
    enabled: true
    address: [{ip: "2001:db8::10", prefix-length: 64}]
- {name: br0, type: linux-bridge, state: up, ipv4: {enabled: false}}
routes:
  running: [{destination: 10.1.0.0/16, next-hop-interface: eth0}]
  config:
  - {destination: 0.0.0.0/0, next-hop-address: 192.0.2.1, next-hop-interface: eth0, table-id: 0, metric: -1}
  - {destination: "::/0", next-hop-address: "2001:db8::1", next-hop-interface: eth0, table-id: 254, metric: 50}
  - {destination: 203.0.113.0/24, next-hop-address: 192.0.2.2, next-hop-interface: eth0, metric: 100, table-id: 100,
     source: 198.51.100.1}
  - {destination: 198.51.100.128/25, next-hop-interface: eth0}
  - {destination: 10.8.0.0/16, next-hop-address: 192.0.2.3, next-hop-interface: eth0, weight: 5}
  - {destination: 10.8.0.0/16, next-hop-address: 192.0.2.4, next-hop-interface: eth0, weight: 1}
  - {destination: 10.9.0.0/16, route-type: blackhole}
  - {destination: 10.7.0.0/16, next-hop-interface: eth0, state: absent}
  - {destination: 10.6.0.0/16, next-hop-interface: br0}
route-rules:
  config:
  - {ip-from: 192.0.2.0/24, route-table: 100}
  - {ip-to: 10.0.0.0/8, route-table: 0, priority: 30100, iif: eth0, fwmark: "0x10", fwmask: 0xff}
  - {family: ipv6, action: prohibit, fwmark: 7}
  - {ip-to: 10.0.0.0/9, state: absent}
"""
NMSTATE_IPV4 = (
    LINK
    + """\
addr add 192.0.2.10/24 dev eth0
addr add 198.51.100.1/32 dev eth0
addr add 2001:db8::10/64 dev eth0
route add default via 192.0.2.1
route add 203.0.113.0/24 via 192.0.2.2 metric 100 table 100 src 198.51.100.1
route add 198.51.100.128/25 dev eth0
route add 10.8.0.0/16 nexthop via 192.0.2.3 weight 5 nexthop via 192.0.2.4
route add blackhole 10.9.0.0/16
rule add from 192.0.2.0/24 table 100 priority 30101
rule add to 10.0.0.0/8 table main priority 30100 iif eth0 fwmark 0x10/0xff
"""
)
NMSTATE_IPV6 = """\
route add default via 2001:db8::1 metric 50
rule add prohibit fwmark 7 priority 30102
"""


def test_nmstate(pair: Pair) -> None:
    pair.make(NMSTATE_IPV4, NMSTATE_IPV6)
    (pair.folder / "state.yml").write_text(NMSTATE)
    check(pair, [str(pair.folder / "state.yml")])


def test_files_complete_each_other(pair: Pair) -> None:
    """A netplan file without a MAC address, and what `ip -j -d link` lists of the running sandbox."""
    pair.make(LINK + "addr add 192.0.2.10/24 dev eth0\nroute add default via 192.0.2.1\n")
    (pair.folder / "a.yaml").write_text(
        "network: {ethernets: {eth0: {addresses: [192.0.2.10/24], gateway4: 192.0.2.1}}}"
    )
    (pair.folder / "link").write_text(pair.listing(pair.oracle, "-d", "link"))
    left_out = check(pair, [str(pair.folder / "a.yaml"), str(pair.folder / "link")])
    assert [line.rpartition("/")[2] for line in left_out] == [
        "a.yaml:1: eth0: no file says its device on the host (device: eth0 is assumed)"
    ]
