"""The port of the agent is unplugged and plugged again, as libvirt does with a channel: the agent follows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from socket import AF_INET

import pytest

from reconciler.errors import ChannelError
from reconciler.guest import agent, lend
from reconciler.guest.client import AgentClient
from reconciler.guest.kernel import GuestKernel
from reconciler.guest.lend import Lender
from reconciler.guest.qmp import Monitor
from reconciler.netlink import sections
from reconciler.netlink.channel import ROUTE
from reconciler.netlink.engine import Engine
from reconciler.netlink.ipvs_engine import IpvsEngine
from reconciler.watch.wake import Wake
from tests.guest.test_guard import V4, probe, restore
from tests.machine import Guest
from tests.replug import DEADLINE, unplugged


@pytest.fixture
def monitor(guest: Guest) -> Iterator[Monitor]:
    with Monitor(guest.sandbox.qmp) as opened:
        yield opened


def links(client: AgentClient) -> list[str]:
    channel = GuestKernel(client).open(ROUTE)
    return [link.name for link in Engine(channel).links()]


def agents(guest: Guest) -> dict[str, int]:
    """Return the agents that run: pid → ticks of a processor that each has taken."""
    script = "for each in $(grep -las '[g]uest/agent.pyc' /proc/[0-9]*/cmdline); do cat ${each%cmdline}stat; done"
    found = [line.split() for line in guest.output("sh", "-c", script).splitlines()]
    return {words[0]: int(words[13]) + int(words[14]) for words in found}


def test_the_agent_follows_its_port(guest: Guest, monitor: Monitor, repeats: Callable[[int], int]) -> None:
    running = agents(guest).keys()
    assert len(running) == 1
    for number in range(repeats(10) + 1):
        # With and without something that the agent has for this host, half a request, a host at all.
        client = AgentClient(guest.sandbox.agent, timeout=DEADLINE)
        if number % 2:
            client.subscribe(sections.GROUPS)
        if number % 3 == 0:
            client._connection._unsent += agent.MAGIC + bytes(agent.NONCE_SIZE) + agent.HEADER.pack(99, 7, agent.DUMPS)
            client._connection.step(time.monotonic() + DEADLINE)
        is_away = number % 4 == 0
        if is_away:
            client.close()
        with unplugged(monitor):
            time.sleep(0.02 * (number % 5))
        if not is_away:
            client.close()
        with AgentClient(guest.sandbox.agent, timeout=DEADLINE) as client:
            assert "lo" in links(client)
    # It has not died and been started again.
    assert agents(guest).keys() == running


def test_an_agent_without_a_port_waits_without_work(guest: Guest, monitor: Monitor) -> None:
    with unplugged(monitor):
        before = agents(guest)
        begin = guest.output("cut", "-d ", "-f1", "/proc/uptime")
        time.sleep(0.5)
        after = agents(guest)
        seconds = float(guest.output("cut", "-d ", "-f1", "/proc/uptime")) - float(begin)
    assert after.keys() == before.keys()
    ((pid, ticks),) = after.items()
    # Ticks are hundredths of a second of the guest, whose clock goes on while a busy host does not run it.
    assert ticks - before[pid] <= 60 * seconds


def test_a_host_that_stays_connected_hears_that_the_port_is_new(guest: Guest, monitor: Monitor) -> None:
    with AgentClient(guest.sandbox.agent, timeout=DEADLINE) as client:
        client.subscribe(sections.GROUPS)
        with unplugged(monitor):
            pass
        found = client.notices(DEADLINE)
        assert (found.lost, found.messages) == (True, [])
        client.subscribe(sections.GROUPS)
        # A first dummy would leave another one, which the module makes.
        guest.output("ip", "link", "add", "replugged", "type", "veth", "peer", "name", "replugged-too")
        try:
            assert client.notices(DEADLINE).messages
        finally:
            guest.output("ip", "link", "del", "replugged")


def test_a_request_during_which_the_port_goes_is_not_answered_by_the_next_agent(guest: Guest, monitor: Monitor) -> None:
    with AgentClient(guest.sandbox.agent, timeout=DEADLINE) as client:
        client.kernel_release()
        with unplugged(monitor):
            # QEMU keeps it, and the next port has it before the greeting.
            client._connection.push(client._request_id + 1, agent.SYSCTL_GET, b"net.ipv4.ip_forward")
            client._connection.step(time.monotonic() + DEADLINE)
        with pytest.raises(ChannelError, match="the guest's agent has started again before it finished its answer"):
            client.request(agent.SYSCTL_GET, b"net.ipv4.ip_forward")
        assert client.request(agent.SYSCTL_GET, b"net.ipv4.ip_forward") in ([b"0"], [b"1"])


def test_it_guards_afterwards(guest: Guest, monitor: Monitor) -> None:
    with AgentClient(guest.sandbox.agent, timeout=DEADLINE) as client:
        family = IpvsEngine(GuestKernel(client)).family

        def guard() -> None:
            client.guard(0.002, [probe(family, V4)], [restore(family, V4)])

        guest.output("ipvsadm", "-A", "-t", "10.0.0.1:80", "-s", "wrr")
        try:
            guard()
            with unplugged(monitor):
                # The guard is the host's, which the agent has lost.
                until_gone(guest)
            assert client.notices(DEADLINE).lost
            guest.output("ipvsadm", "-C")
            assert guest.output("ipvsadm", "-Sn") == ""
            guest.output("ipvsadm", "-A", "-t", "10.0.0.1:80", "-s", "wrr")
            guard()
            guest.output("ipvsadm", "-C")
            (report,) = client.notices(DEADLINE).guarded
            assert (report.family, report.errno) == (AF_INET, 0)
            assert guest.output("ipvsadm", "-Sn") == "-A -t 10.0.0.1:80 -s wrr\n"
            client.unguard()
        finally:
            guest.output("ipvsadm", "-C")


def until_gone(guest: Guest) -> None:
    """Wait until the agent has ended its guard, which is a process of the same name."""
    deadline = time.monotonic() + DEADLINE
    while len(agents(guest)) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_is_lent_afterwards(guest: Guest, monitor: Monitor) -> None:
    path, wake = guest.sandbox.agent, Wake()
    with AgentClient(path, timeout=DEADLINE) as client, Lender(path, wake.fileno()) as lender:
        client.subscribe(sections.GROUPS)
        with unplugged(monitor):
            pass
        borrowed: list[str] = []

        def borrow() -> None:
            with AgentClient(path, timeout=DEADLINE, borrow=True) as borrower:
                borrowed.extend(links(borrower))

        thread = threading.Thread(target=borrow)
        thread.start()
        deadline = time.monotonic() + DEADLINE
        while (asker := lender.asker()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with asker:
        lend.lend(asker)
        assert lend.is_back(asker, wake.fileno())
    thread.join(DEADLINE)
    wake.close()
    assert "lo" in borrowed
