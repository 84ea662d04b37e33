"""A file of another tool is imported or refused, whatever is in it, in each notation."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.manifest.compose import compose
from tests.fuzz.mutations import lie

SEEDS = {
    "keepalived": """\
$VIP=10.0.0.1
global_defs {
  lvs_timeouts tcp 900 tcpfin 120 udp 300
}
include parts/*.conf
@one virtual_server $VIP 80 {
  protocol TCP
  lb_algo rr
  lb_kind NAT
  ~SEQ(N, 1, 9) real_server 10.0.1.$N 80 { weight 1 }
  real_server 10.0.2.1 80 {
    weight 5
    TCP_CHECK { connect_timeout 3 }
  }
}
virtual_server fwmark 7 { ip_family inet6 persistence_timeout 60 sorry_server fd00::1 80 real_server fd00::2 0 { } }
""",
    "kata": """\
[{"device": "tap1", "name": "eth1", "IPAddresses": [{"Family": 2, "Address": "10.1.0.2", "Mask": "24"}], "mtu": 1400,
 "hwAddr": "02:42:20:6f:a3:01"}, {"dest": "10.2.1.0/24", "gateway": "10.1.0.1", "device": "eth1"}, null]
""",
    "ip": """\
[{"ifindex":4,"link_index":61,"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP"],"mtu":1400,"qdisc":"noqueue",
"operstate":"DOWN","group":"default","link_type":"ether","address":"02:42:20:6f:a3:69","ifalias":"x",
"linkinfo":{"info_kind":"veth"},"inet6_addr_gen_mode":"eui64","addr_info":[{"family":"inet","local":"192.0.2.3",
"prefixlen":24,"scope":"global","label":"eth0","valid_life_time":4294967295,"preferred_life_time":4294967295},
{"family":"inet6","local":"2001:db8::3","prefixlen":64,"scope":"global","nodad":true}]},
{"type":"unicast","dst":"default","gateway":"192.0.2.1","dev":"eth0","table":"main","flags":["onlink"],"pref":"medium"},
{"dst":"10.2.0.0/16","nexthops":[{"gateway":"192.0.2.2","dev":"eth0","weight":3,"flags":[]}],"metrics":[{"mtu":1300}]},
{"priority":110,"not":null,"src":"10.0.0.0","srclen":8,"fwmark":"0x10","fwmask":"0xff","sport_start":1,"sport_end":2,
"ipproto":"tcp","table":"7"},{"dst":"192.0.2.1","dev":"eth0","lladdr":"02:42:20:6f:a3:01","state":["PERMANENT"]}]
""",
    "netplan": """\
network:
  version: 2
  ethernets:
    eth0:
      match: {macaddress: "02:42:20:6f:a3:69", name: ens3}
      set-name: eth0
      dhcp4: no
      mtu: 1400
      addresses: [192.0.2.10/24, 198.51.100.1/32: {label: x, lifetime: 0}]
      gateway4: 192.0.2.1
      routes:
        - {to: 203.0.113.7/24, via: 192.0.2.2, metric: 100, on-link: true, table: 5, type: unicast}
      routing-policy: [{from: 192.0.2.0/24, table: 100, mark: 7}]
  vlans: {vlan1: {id: 1, link: eth0}}
""",
    "networkd": """\
[Match]
Name=eth0 eth1
[Link]
MTUBytes=2K
[Network]
Address=192.0.2.10/24
Gateway=192.0.2.1
DNS=192.0.2.53 \\
  192.0.2.54
[Address]
Address=2001:db8::1/64
DuplicateAddressDetection=none
[Route]
Destination=203.0.113.0/24
MultiPathRoute=192.0.2.3@eth0 3
Table=100
[RoutingPolicyRule]
FirewallMark=0x10/0xff
Family=both
SourcePort=1-9
[Neighbor]
Address=192.0.2.9
LinkLayerAddress=02:42:20:6f:a3:09
""",
    "nmstate": """\
interfaces:
- {name: eth0, type: ethernet, state: up, mac-address: "02:42:20:6F:A3:69", mtu: 1400,
   ipv4: {enabled: true, address: [{ip: 192.0.2.10, prefix-length: 24}]}}
routes:
  config:
  - {destination: 0.0.0.0/0, next-hop-address: 192.0.2.1, next-hop-interface: eth0, table-id: 0, weight: 2}
  - {destination: 10.9.0.0/16, route-type: blackhole, state: absent}
route-rules: {config: [{ip-from: 192.0.2.0/24, route-table: 200, fwmark: "0x10", fwmask: 0xff}]}
""",
    "ipvsadm": "-A -t 10.0.0.1:80 -s rr -p 60\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 5\nipvsadm -A -f 7 -6 --pe sip\n",
}
PIECES = (
    "{",
    "}",
    "[",
    "]",
    '"',
    "$",
    "@",
    "~LST(A,B)",
    "~SEQ(N,1,99999)",
    "\\",
    "\x00",
    "include *\n",
    "null",
    "- ",
    "[Route]\n",
    "=",
    "*a",
    "&a ",
    "-",
    "\u202e",
    "9" * 40,
)
# Seconds of a processor for one file.
LONGEST = 4.0


def changed(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 6)):
        at, begin = chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)
        part = text[begin : begin + chance.choice((1, 10, 100))]
        match chance.randrange(4):
            case 0:
                text = text[:at] + part * chance.choice((1, 3, 500)) + text[at:]
            case 1:
                text = text[:begin] + text[begin + len(part) :]
            case 2:
                text = text[:at] + chance.choice(PIECES) * chance.choice((1, 1, 50)) + text[at:]
            case _:
                text = text[:at] + part[::-1] + text[at:]
    return text[: 1 << 20]


@pytest.mark.parametrize("notation", SEEDS)
def test_any_is_imported_or_refused(
    notation: str, tmp_path: Path, repeats: Callable[[int], int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/a.conf").write_text("virtual_server 10.0.9.9 80 {\n}\n")
    (tmp_path / "parts/secret.conf").symlink_to("/etc/passwd")
    (tmp_path / "file.d").mkdir()
    (tmp_path / "file.d/a.conf").write_text("[Route]\nGateway=192.0.2.9\n")
    secrets = Path("/etc/passwd").read_text().splitlines()
    chance, file = random.Random(notation), tmp_path / "file"
    for _ in range(repeats(400)):
        text = changed(SEEDS[notation], chance)
        file.write_text(text, errors="replace")
        begin = time.process_time()
        forced = ("--from", notation) if chance.random() < 0.5 else ()
        assert main(["import", "--sandbox", "a", "--netns", "a", *forced, str(file)]) in {0, 2}, text
        assert time.process_time() - begin < LONGEST, text
        printed = "".join(capsys.readouterr())
        assert not any(line in printed for line in secrets), text


@pytest.mark.parametrize("notation", ["ip", "netplan", "nmstate"])
def test_values_of_other_forms(
    notation: str, tmp_path: Path, repeats: Callable[[int], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The text is right, and a value in it is another one, is missing, or comes many times."""
    chance, file = random.Random(notation), tmp_path / "file"
    (seed,) = compose(SEEDS[notation])
    for _ in range(repeats(300)):
        data = lie(copy.deepcopy(seed), chance)
        # A value may be in itself now.
        with contextlib.suppress(ValueError):
            file.write_text(json.dumps(data))
        begin = time.process_time()
        code = main(["import", "--sandbox", "a", "--netns", "a", "--from", notation, str(file)])
        assert code in {0, 2}, file.read_text()
        assert time.process_time() - begin < LONGEST, file.read_text()
        capsys.readouterr()
