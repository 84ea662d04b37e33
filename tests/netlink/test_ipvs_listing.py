"""The kernel's listing: what agrees with it, what it does not show, and that a real kernel lists what is expected."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.guest.client import AgentClient
from reconciler.guest.kernel import GuestKernel
from reconciler.model.ipvs import Ipvs, Server, Service
from reconciler.netlink.ipvs_engine import IpvsEngine
from reconciler.netlink.ipvs_listing import agreeing, connections, heading, order, place, words
from reconciler.values import replace
from tests.formats.strategies import services
from tests.formats.table import FULL
from tests.machine import Guest
from tests.netlink.ipvs_kernel import FakeKernel

WEB = Service(protocol="tcp", address="10.0.0.1", port=80, servers=(Server(address="10.0.0.9", port=8080, weight=3),))


def is_plain(service: Service) -> bool:
    hidden = any(s.forward == "tunnel" or s.upper_threshold or s.lower_threshold for s in service.servers)
    return service.protocol != "fwmark" and not hidden


def listing(*table: Service) -> str:
    kernel = FakeKernel()
    for service in table:
        kernel.add(service)
    return kernel.ipvs_listing()


@given(services())
def test_whatever_is_listed_whole_agrees(table: list[Service]) -> None:
    assert agreeing(listing(*table), table) == list(filter(is_plain, table))


def test_connections_stand_with_their_servers() -> None:
    kernel = FakeKernel()
    kernel.add(WEB, connections=[3])
    kernel.add(replace(WEB, address="fd00::1", servers=(Server(address="fd00::9", port=80),)), connections=[4])
    text = kernel.ipvs_listing()
    assert heading(text) == "IP Virtual Server version 1.2.1 (size=4096)"
    assert connections(text) == {
        (words(WEB.key), place("10.0.0.9", 8080)): (3, 0),
        (words(("tcp", "fd00::1", 80)), place("fd00::9", 80)): (4, 0),
    }
    assert connections("") == {}
    assert heading("") == ""


def test_what_differs_in_anything_that_is_listed_does_not_agree() -> None:
    server = WEB.servers[0]
    others = [
        replace(WEB, port=81),
        replace(WEB, protocol="udp"),
        replace(WEB, servers=()),
        replace(WEB, servers=(*WEB.servers, replace(server, port=1))),
        *(replace(WEB, servers=(each,)) for each in (replace(server, weight=4), replace(server, forward="dr"))),
        *(replace(WEB, servers=(each,)) for each in (replace(server, port=1), replace(server, address="10.0.0.8"))),
    ]
    assert agreeing(listing(WEB), [WEB]) == [WEB]
    for other in others:
        assert agreeing(listing(WEB), [other]) == []
        assert agreeing(listing(other), [WEB]) == []


def test_a_server_that_is_listed_twice_is_read_by_netlink() -> None:
    # The kernel counts its way through its table, and may show a line again.
    lines = listing(WEB).splitlines()
    assert agreeing("\n".join([*lines, lines[-1]]), [WEB]) == []


@given(st.text(alphabet="TCP FWM->[]:.0A19\n\0é", max_size=200))
def test_any_text_is_only_a_listing_that_says_something_else(text: str) -> None:
    assert agreeing(text, [WEB]) == []
    assert len(order(text)) <= text.count("\n") + 1


def test_a_real_kernel_lists_what_it_has(guest: Guest, client: AgentClient) -> None:
    kernel = GuestKernel(client)
    guest.output("ip", "addr", "add", "10.9.9.9/32", "dev", "lo")
    try:
        loaded = guest.run("ipvsadm", "-R", stdin=FULL.encode())
        assert (loaded.status, loaded.stderr) == (0, b""), loaded
        engine = IpvsEngine(kernel)
        found = [*engine.observe(Ipvs()).foreign]
        text = kernel.ipvs_listing()
        assert text is not None
        # All of a table with every feature but those that a listing does not show, local servers included.
        local = {"10.9.9.9", "fd00::9"}
        plain = [each for each in found if is_plain(each) and not local & {s.address for s in each.servers}]
        assert set(plain) <= set(agreeing(text, found)) <= set(filter(is_plain, found))
        assert len(plain) > 10
        # Two marks are listed alike.
        assert list(order(text)) == list(dict.fromkeys(words(each.key) for each in found))
        wanted = Ipvs(services=tuple(replace(each, marked=False) for each in found))
        assert set(engine.observe(wanted, quick=True).ipvs.services or ()) == set(
            engine.observe(wanted).ipvs.services or ()
        )
    finally:
        guest.output("ipvsadm", "-C")
        guest.output("ip", "addr", "del", "10.9.9.9/32", "dev", "lo")
