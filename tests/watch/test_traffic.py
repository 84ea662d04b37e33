"""What is kept of the connections of a sandbox, and what is said of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.model.ipvs import Ipvs, Load, Server, Service
from reconciler.model.sandbox import NetnsAddress, Observed, Sandbox, Surroundings
from reconciler.plan import Plan
from reconciler.preview import Preview
from reconciler.watch import traffic
from reconciler.watch.traffic import Traffic

NOW = 1_700_000_000.0
WEB = Service(
    protocol="tcp",
    address="172.17.0.7",
    port=80,
    servers=(Server(address="172.17.0.4", port=80, weight=100), Server(address="2001:db8::1", port=80)),
)
MARK = Service(protocol="fwmark", address="0.0.0.0", port=17, servers=(Server(address="172.17.0.4"),))
SERVICES = (WEB, MARK)
# As Linux 6.1 lists it.
KERNEL = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  AC110007:0050 wlc
  -> AC110004:0050      Masq    100    3          12
  -> [2001:0db8:0000:0000:0000:0000:0000:0001]:0050      Tunnel  1      0          4
FWM  00000011 wlc
  -> AC110004:0000      Masq    1      7          0
"""
# As ipvsadm 1.31 does, which kata-runtime passes on.
IPVSADM = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  172.17.0.7:80 wlc
  -> 172.17.0.4:80                Masq    100    3          12
  -> [2001:db8::1]:80             Tunnel  1      0          4
FWM  17 wlc
  -> 172.17.0.4:0                 Masq    1      7          0
"""


def look(listing: str = "", services: tuple[Service, ...] = SERVICES, draining: int = 0, **around: Any) -> Preview:
    desired = Sandbox(id="web-1", driver=NetnsAddress(name="web-1"), ipvs=Ipvs(services=SERVICES))
    observed = Sandbox(id="web-1", driver=NetnsAddress(name="web-1"), ipvs=Ipvs(services=services))
    found = Observed(sandbox=observed, around=Surroundings(ipvs_listing=listing, now=NOW, **around))
    return Preview(desired=desired, observed=found, plan=Plan(segments=(), draining=draining))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "clock", SimpleNamespace(now=lambda: 100.0, unix=lambda moment: moment and NOW))


def seen(*looks: Preview) -> Traffic:
    found = Traffic()
    for each in looks:
        found = found.seen(each.desired, each)
    return found


@pytest.mark.parametrize("listing", [KERNEL, IPVSADM])
def test_each_server_has_its_connections(listing: str) -> None:
    assert seen(look(listing)).to_data(SERVICES) == {
        "read": NOW,
        "services": [
            {
                "service": "tcp 172.17.0.7:80",
                "active": 3,
                "inactive": 16,
                "servers": [
                    {"server": "172.17.0.4:80", "weight": 100, "active": 3, "inactive": 12},
                    {"server": "[2001:db8::1]:80", "weight": 1, "active": 0, "inactive": 4},
                ],
            },
            {
                "service": "fwmark 17",
                "active": 7,
                "inactive": 0,
                "servers": [{"server": "172.17.0.4:0", "weight": 1, "active": 7, "inactive": 0}],
            },
        ],
        "draining": [],
    }


def test_a_server_that_is_not_listed_has_no_number() -> None:
    (web, _) = seen(look(KERNEL.replace("AC110004:0050", "AC110005:0050"))).to_data(SERVICES)["services"]
    assert (web["active"], web["servers"][0]["active"], web["servers"][1]["active"]) == (0, None, 0)


def test_a_full_look_lists_nothing_and_takes_nothing_away() -> None:
    assert seen(look(KERNEL), look()) == seen(look(KERNEL))
    assert seen(look()) == Traffic()
    assert seen(look()).to_data(SERVICES) == {"read": 0.0, "services": [], "draining": []}


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 11, "-1", "x", "", "٣" * 3])
def test_a_listing_of_a_liar_is_no_error(digits: str) -> None:
    data = seen(look(KERNEL.replace("12\n", f"{digits}\n"))).to_data(SERVICES)
    assert data["services"][0]["servers"][0]["inactive"] in {None, 333}
    assert data["services"][1]["active"] == 7


def test_a_listing_that_is_much_longer_than_the_manifest_is_not_kept() -> None:
    most = traffic.MOST + 5 * traffic.OBJECT_MOST
    assert seen(look(KERNEL.ljust(most))).listing
    assert not seen(look(KERNEL), look(KERNEL.ljust(most + 1))).listing


def test_what_drains_is_named_until_it_is_gone() -> None:
    leaving = Server(address="172.17.0.9", port=80).draining(NOW + 42)
    draining = look(
        services=(Service(protocol="tcp", address="172.17.0.7", port=80, servers=(leaving,)),),
        draining=1,
        connections={(WEB.key, leaving.key): Load(3)},
    )
    expected = {"service": "tcp 172.17.0.7:80", "server": "172.17.0.9:80", "connections": 3, "deadline": int(NOW) + 42}
    assert seen(look(KERNEL), draining).to_data(SERVICES)["draining"] == [expected]
    assert seen(draining, look()).to_data(SERVICES)["draining"] == []
