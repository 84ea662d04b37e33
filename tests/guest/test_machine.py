"""A real guest: the client to its kernel, commands in it, and what happens when one of the two ends dies or stops."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from socket import IPPROTO_TCP

import pytest

from reconciler.errors import ChannelError, ProtocolError
from reconciler.guest import agent, command
from reconciler.guest.client import AgentClient
from reconciler.guest.kernel import GuestChannel
from reconciler.model.mark import PROTOCOL
from reconciler.model.route import IPV6_DEFAULT_METRIC, Route
from reconciler.netlink import message, sections
from reconciler.netlink.engine import Engine
from reconciler.netlink.execute import execute
from reconciler.netlink.message import ACK, DUMP, REQUEST, attribute, failure, pack
from reconciler.operations.outcome import Status
from reconciler.operations.route import AddRoute, DeleteRoute
from tests.machine import Guest, freeze

GET_FAMILY = struct.pack("=BBH", 3, 1, 0)
# linux/ip_vs.h: IPVS_CMD_NEW_SERVICE, IPVS_CMD_FLUSH; attributes of a command and of a service.
NEW_SERVICE, FLUSH = 1, 17
DUMP_LINKS = pack(18, REQUEST | DUMP, 7, b"\0" * 16)


@pytest.fixture
def engine(client: AgentClient) -> Engine:
    return Engine(GuestChannel(client, agent.ROUTE))


def test_it_runs_debian_s_kernel(guest: Guest, client: AgentClient) -> None:
    assert client.kernel_release() == guest.output("uname", "-r").strip()


def test_links_addresses_and_routes(engine: Engine) -> None:
    links = engine.links()
    assert [link.name for link in links] == ["lo"]
    assert {address.address for address in engine.addresses()} == {"127.0.0.1/8", "::1/128"}
    assert engine.routes({link.name: link.index for link in links}, ()).ours == []


def test_three_thousand_routes(engine: Engine) -> None:
    routes = [Route(dest=f"10.{n // 250}.{n % 250}.0/24", type="blackhole") for n in range(1500)]
    metric = IPV6_DEFAULT_METRIC
    routes += [Route(dest=f"2001:db8:{n:x}::/48", type="blackhole", metric=metric) for n in range(1, 1501)]
    outcomes = [o for batch in execute(engine, [AddRoute(route=r) for r in routes], {}) for o in batch]
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    found = engine.routes({"lo": 1}, routes).ours
    assert sorted(found, key=str) == sorted(routes, key=str)
    outcomes = [o for batch in execute(engine, [DeleteRoute(route=r) for r in routes], {}) for o in batch]
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    assert engine.routes({"lo": 1}, ()).ours == []


def test_a_refusal_comes_back_with_the_kernel_s_words(engine: Engine) -> None:
    wrong = DeleteRoute(route=Route(dest="198.51.100.0/24", type="blackhole", table=7777))
    twice = [AddRoute(route=Route(dest="198.51.100.0/24", type="blackhole"))] * 2
    # Nothing is deleted after an addition that failed.
    outcomes = [outcome for batch in execute(engine, [*twice, wrong], {}) for outcome in batch]
    assert [outcome.status for outcome in outcomes] == [Status.DONE, Status.FAILED]
    assert outcomes[1].reason.startswith("the kernel: File exists")
    assert [o.status for o in next(execute(engine, [DeleteRoute(route=twice[0].route)], {}))] == [Status.DONE]


def ipvs_family(channel: GuestChannel) -> int:
    asked = pack(16, REQUEST | ACK, 1, GET_FAMILY + attribute(2, b"IPVS\0"))
    answer = channel.exchange(asked, 1)[0]
    (family,) = [struct.unpack("=H", value)[0] for kind, value in message.attributes(answer.payload, 4) if kind == 1]
    return int(family)


def test_a_service_of_ipvs_shows_in_ipvsadm(guest: Guest, client: AgentClient) -> None:
    channel = GuestChannel(client, agent.GENERIC)
    family = ipvs_family(channel)
    service = (
        attribute(1, struct.pack("=H", 2))
        + attribute(2, struct.pack("=H", IPPROTO_TCP))
        + attribute(3, IPv4Address("10.0.0.1").packed + b"\0" * 12)
        + attribute(4, struct.pack("!H", 80))
        + attribute(6, b"wrr\0")
        + attribute(7, struct.pack("=II", 0, 0xFFFFFFFF))
        + attribute(8, struct.pack("=I", 0))
        + attribute(9, b"\xff\xff\xff\xff")
    )
    add = pack(family, REQUEST | ACK, 2, struct.pack("=BBH", NEW_SERVICE, 1, 0) + attribute(0x8001, service))
    assert failure(channel.exchange(add, 2)[-1]) is None
    assert guest.output("ipvsadm", "-Sn") == "-A -t 10.0.0.1:80 -s wrr\n"
    again = failure(channel.exchange(add, 2)[-1])
    assert again is not None
    assert again.errno == errno.EEXIST
    flush = pack(family, REQUEST | ACK, 3, struct.pack("=BBH", FLUSH, 1, 0))
    assert failure(channel.exchange(flush, 3)[-1]) is None
    assert guest.output("ipvsadm", "-Sn") == ""


def test_of_generic_netlink_only_ipvs_is_relayed(client: AgentClient) -> None:
    channel = GuestChannel(client, agent.GENERIC)
    family = ipvs_family(channel)
    asked = [
        pack(16, REQUEST | ACK, 1, GET_FAMILY + attribute(2, b"nlctrl\0")),
        pack(16, REQUEST | DUMP, 1, GET_FAMILY),
        pack(16, REQUEST | ACK, 1, struct.pack("=BBH", 10, 1, 0) + attribute(2, b"IPVS\0")),
        pack(family + 1, REQUEST | ACK, 1, GET_FAMILY),
        pack(family, REQUEST, 1, GET_FAMILY) + pack(17, REQUEST | ACK, 1, GET_FAMILY),
    ]
    for each in asked:
        with pytest.raises(ProtocolError, match="is not relayed"):
            channel.exchange(each, 1)


def test_conntrack_is_dumped(client: AgentClient) -> None:
    client.request(agent.MODPROBE, b"nf_conntrack_netlink")
    channel = GuestChannel(client, agent.NETFILTER)
    answers = channel.exchange(pack(0x0101, REQUEST | DUMP, 1, b"\2\0\0\0"), 1)
    assert answers[-1].type == message.DONE
    with pytest.raises(ProtocolError, match="is not relayed"):
        # nf_tables.
        channel.exchange(pack(0x0A01, REQUEST | DUMP, 1, b"\0\0\0\0"), 1)


def test_other_protocols_are_refused(client: AgentClient) -> None:
    for protocol in (4, 6, 9, 15, 21, 65535):
        with pytest.raises(ProtocolError, match=f"netlink protocol {protocol} is not relayed"):
            GuestChannel(client, protocol).exchange(pack(18, REQUEST | DUMP, 1, b"\0" * 16), 1)


def test_modules_are_loaded_and_others_not(guest: Guest, client: AgentClient) -> None:
    client.request(agent.MODPROBE, b"ip_vs_mh")
    assert "ip_vs_mh " in guest.output("lsmod")
    with pytest.raises(ProtocolError, match="is not one that the agent may load"):
        client.request(agent.MODPROBE, b"dummy")
    assert "dummy" not in guest.output("lsmod")
    if client.kernel_release().startswith("6.1."):
        with pytest.raises(ProtocolError, match="add the module to the guest's kernel"):
            client.request(agent.MODPROBE, b"ip_vs_twos")
    else:
        client.request(agent.MODPROBE, b"ip_vs_twos")


def test_every_other_module_of_the_list_is_there(client: AgentClient) -> None:
    for name in sorted(agent.MODULES - {"ip_vs_twos"}):
        client.request(agent.MODPROBE, name.encode())


def test_settings(guest: Guest, client: AgentClient) -> None:
    client.request(agent.MODPROBE, b"ip_vs")
    client.set_sysctl("net.ipv4.vs.conntrack", "1")
    names = ["net.ipv4.vs.conntrack", "net.ipv4.vs.est_nice", "net.ipv4.ip_forward", "net/ipv4/conf/lo/rp_filter"]
    found = client.read_sysctls(names)
    assert found["net.ipv4.vs.conntrack"] == "1"
    # Linux 6.1 has no est_nice.
    assert found.keys() | {"net.ipv4.vs.est_nice"} == {*names}
    assert client.read_sysctls([]) == {}
    assert guest.output("cat", "/proc/sys/net/ipv4/vs/conntrack") == "1\n"
    client.set_sysctl("net.ipv4.vs.conntrack", "0")
    with pytest.raises(ProtocolError, match="is not one that the agent may read"):
        client.read_sysctls(["net.ipv4.ip_forward", "kernel.panic"])
    with pytest.raises(ProtocolError, match="Invalid argument"):
        client.set_sysctl("net.ipv4.vs.conntrack", "1,2-3")


def test_the_list_of_settings_is_the_kernel_s(guest: Guest, client: AgentClient) -> None:
    client.request(agent.MODPROBE, b"ip_vs")
    # The timeouts of lblc and lblcr come with those modules, and are left out.
    names = {name for name in guest.output("ls", "/proc/sys/net/ipv4/vs").split() if not name.startswith("lblc")}
    # Later kernels and debug builds have more.
    assert names <= agent.IPVS_SYSCTLS
    assert agent.IPVS_SYSCTLS - names <= {"est_cpulist", "est_nice", "amemthresh", "am_droprate"}


def test_it_tells_what_changes(guest: Guest, client: AgentClient) -> None:
    client.subscribe(sections.GROUPS)
    guest.output("sh", "-c", "ip link add seen type veth && ip addr add 192.0.2.1/24 dev seen && ip link del seen")
    types = []
    while 17 not in types:
        found = client.notices(5)
        assert found.messages
        assert not found.lost
        types += [each.type for each in found.messages]
    assert {message.NEW_LINK, message.NEW_ADDRESS} <= set(types)


def test_commands(guest: Guest) -> None:
    ran = guest.run("sh", "-c", "cat; echo error >&2; exit 7", stdin=b"input")
    assert (ran.status, ran.stdout, ran.stderr) == (7, b"input", b"error\n")
    assert guest.run("no-such-command").status == 127


def test_a_megabyte_there_and_back(guest: Guest) -> None:
    data = os.urandom(1 << 20)
    ran = guest.run("cat", stdin=data)
    assert ran.status == 0
    assert ran.stdout == data


LEAVE = """
import os, sys, time
from reconciler.guest import agent
from reconciler.guest.connection import Connection
connection = Connection(sys.argv[1])
connection.greet(time.monotonic() + 60)
connection._socket.setblocking(True)
connection._socket.sendall(agent.HEADER.pack(500_000, 1, agent.NETLINK) + b"x" * int(sys.argv[2]))
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("size", [0, 1, 3000, 200_000, 499_999])
@pytest.mark.parametrize("port", ["agent", "exec"])
def test_a_host_that_is_killed_in_a_frame(guest: Guest, port: str, size: int) -> None:
    path = getattr(guest.sandbox, port)
    killed = subprocess.run([sys.executable, "-c", LEAVE, path, str(size)], check=False)
    assert killed.returncode == -signal.SIGKILL
    if port == "exec":
        assert guest.output("echo", "here") == "here\n"
    else:
        with AgentClient(path) as client:
            assert [link.name for link in Engine(GuestChannel(client, agent.ROUTE)).links()] == ["lo"]


def test_hosts_that_follow_each_other_at_once(guest: Guest, repeats: Callable[[int], int]) -> None:
    # The guest hears of the first one's end when the second one's greeting is read already.
    for number in range(repeats(100)):
        with AgentClient(guest.sandbox.agent) as client:
            assert client.read_sysctls(["net.ipv4.ip_forward"])["net.ipv4.ip_forward"] in {"0", "1"}
        assert guest.output("echo", str(number)) == f"{number}\n"


def test_answers_that_a_killed_host_did_not_fetch(guest: Guest) -> None:
    for _ in range(5):
        with AgentClient(guest.sandbox.agent) as leaving:
            leaving.kernel_release()
            for number in range(100):
                leaving._connection.push(number, agent.NETLINK, agent.NETLINK_HEAD.pack(0, 7) + DUMP_LINKS)
            while leaving._connection.pending:
                leaving._connection.step(time.monotonic() + 60)
        with AgentClient(guest.sandbox.agent) as client:
            assert [link.name for link in Engine(GuestChannel(client, agent.ROUTE)).links()] == ["lo"]


def test_an_agent_that_is_killed_comes_back(guest: Guest) -> None:
    with AgentClient(guest.sandbox.agent) as client:
        engine = Engine(GuestChannel(client, agent.ROUTE))
        engine.links()
        client._timeout = 2
        guest.output("sh", "-c", "kill -9 $(ps | awk '/guest.agent.pyc/ && !/awk/ {print $1}')")
        with pytest.raises(ChannelError):
            engine.links()
        client._timeout = 60
        assert [link.name for link in engine.links()] == ["lo"]


def test_a_runner_that_is_killed_comes_back(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(command, "SILENCE", 3.0)
        with pytest.raises(ChannelError):
            guest.run("sh", "-c", "kill -9 $PPID; sleep 20")
    assert guest.output("echo", "here") == "here\n"


@contextmanager
def stopped(guest: Guest) -> Iterator[None]:
    pid = guest.sandbox.pid()
    assert pid
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_machine_that_hangs_is_an_error_in_time_and_clean_afterwards(guest: Guest) -> None:
    with AgentClient(guest.sandbox.agent) as client:
        engine = Engine(GuestChannel(client, agent.ROUTE))
        assert engine.links()
        client._timeout = 1
        with stopped(guest):
            for _ in range(2):
                started = time.monotonic()
                with pytest.raises(ChannelError):
                    engine.links()
                assert 0.9 < time.monotonic() - started < 30
        client._timeout = 60
        assert [link.name for link in engine.links()] == ["lo"]
    with stopped(guest), AgentClient(guest.sandbox.agent, 1) as client, pytest.raises(ChannelError):
        client.kernel_release()
    with AgentClient(guest.sandbox.agent) as client:
        assert client.kernel_release()


def test_a_batch_whose_answer_does_not_come_is_unknown(guest: Guest) -> None:
    routes = [AddRoute(route=Route(dest=f"10.77.{n}.0/24", type="blackhole")) for n in range(10)]
    with AgentClient(guest.sandbox.agent) as client:
        engine = Engine(GuestChannel(client, agent.ROUTE))
        engine.links()
        client._timeout = 0.5
        with stopped(guest):
            (outcomes,) = execute(engine, routes, {})
        assert {outcome.status for outcome in outcomes} == {Status.UNKNOWN}
        client._timeout = 60
        # The new greeting comes behind the batch, so what is seen now is what stays.
        added = [each for each in engine.routes({"lo": 1}, ()).ours if each.protocol == PROTOCOL]
        assert len(added) == 10
        (outcomes,) = execute(engine, [DeleteRoute(route=each.route) for each in routes], {})
        assert {outcome.status for outcome in outcomes} == {Status.DONE}
