"""The guard: services that the guest puts back by itself, in a real guest; and its loop alone, on a played kernel."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from socket import AF_INET, AF_INET6
from typing import cast

import pytest

from reconciler.errors import ProtocolError
from reconciler.guest import agent
from reconciler.guest.client import AgentClient, GuardReport, Notices
from reconciler.guest.kernel import GuestKernel
from reconciler.model.ipvs import Ipvs, Service
from reconciler.netlink import ipvs, message
from reconciler.netlink.ipvs_engine import IpvsEngine
from reconciler.netlink.message import ACK, DUMP, REQUEST, attribute, failure, pack
from reconciler.operations.ipvs import AddService, DeleteService
from reconciler.values import dataclass, field
from tests.machine import Guest
from tests.watch.running import until

PERIOD = 0.001
V4 = Service(protocol="tcp", address="10.0.0.1", port=80, scheduler="wrr")
V6 = Service(protocol="udp", address="2001:db8::1", port=53, scheduler="rr")
RULES = "-A -t 10.0.0.1:80 -s wrr\n-A -u [2001:db8::1]:53 -s rr\n"
# ip_vs.h: IPVS_CMD_NEW_SERVICE, _DEL_SERVICE, _GET_SERVICE, _FLUSH.
NEW_SERVICE, DELETE_SERVICE, GET_SERVICE, FLUSH = 1, 3, 4, 17


def command(family: int, number: int, body: bytes = b"", flags: int = REQUEST) -> bytes:
    return pack(family, flags, 7, struct.pack("=BBH", number, 1, 0) + body)


def probe(family: int, service: Service) -> bytes:
    return command(family, GET_SERVICE, attribute(1, ipvs.encode_identity(service.key)))


def restore(family: int, service: Service) -> bytes:
    return ipvs.encode(AddService(service=service), family, 8)


@dataclass
class Guarding:
    """A guest with two services, and the means to guard them."""

    guest: Guest
    client: AgentClient
    engine: IpvsEngine

    def on(self, *services: Service, period: float = PERIOD) -> None:
        family, guarded = self.engine.family, services or (V4, V6)
        self.client.guard(period, [probe(family, s) for s in guarded], [restore(family, s) for s in guarded])

    def rules(self) -> str:
        return self.guest.output("ipvsadm", "-Sn")

    def flush(self) -> None:
        self.guest.output("ipvsadm", "-C")

    def told(self, count: int) -> list[GuardReport]:
        """Wait until so much was told."""
        found: list[GuardReport] = []
        while len(found) < count:
            new = self.client.notices(60).guarded
            assert new, found
            found += new
        return found


@pytest.fixture
def guarding(guest: Guest) -> Iterator[Guarding]:
    client = AgentClient(guest.sandbox.agent)
    made = Guarding(guest, client, IpvsEngine(GuestKernel(client)))
    try:
        loaded = guest.run("ipvsadm", "-R", stdin=RULES.encode())
        assert (loaded.status, loaded.stderr) == (0, b""), loaded
        yield made
    finally:
        # A test may have closed it.
        with suppress(OSError):
            client.close()
        # A new host ends what was guarded.
        with AgentClient(guest.sandbox.agent) as last:
            last.kernel_release()
        made.flush()


# A real guest.


def test_a_flush_leaves_one_service_of_each_family(guarding: Guarding) -> None:
    guarding.on()
    guarding.guest.output("ipvsadm", "-A", "-t", "10.0.0.9:80")
    for _ in range(5):
        guarding.flush()
        found = guarding.told(2)
        assert guarding.rules() == RULES
        assert {(each.family, each.errno) for each in found} == {(AF_INET, 0), (AF_INET6, 0)}
        for each in found:
            assert each.gone is not None
            assert 0 < each.gone < 20


# Looks at the first service as fast as it can while the table is flushed.
WATCH = """
import struct, subprocess, sys, time
from reconciler.guest import agent
question = bytes.fromhex(sys.argv[1])
channel = agent.open_netlink(agent.GENERIC)
def gone():
    channel.send(question)
    return struct.unpack_from("=4xH10xi", channel.recv(4096)) == (2, -3)
flush = subprocess.Popen(["ipvsadm", "-C"])
left, seen, ended = time.perf_counter(), time.perf_counter(), None
while not gone():
    seen = time.perf_counter()
    if flush.poll() is not None:
        sys.exit("it was not seen gone")
while gone():
    pass
print((time.perf_counter() - seen) * 1000)
flush.wait()
"""


def test_how_long_it_is_gone(
    guarding: Guarding, record_property: Callable[[str, object], None], repeats: Callable[[int], int]
) -> None:
    guarding.on()
    question = probe(guarding.engine.family, V4).hex()
    times = []
    for _ in range(repeats(10)):
        ran = guarding.guest.run("python3.11", "-c", WATCH, question)
        told = guarding.told(2)
        if ran.status == 0:
            times.append(float(ran.stdout))
        assert {each.errno for each in told} == {0}
        assert guarding.rules() == RULES
    record_property("milliseconds", times)
    print("gone for, in ms:", " ".join(f"{each:.1f}" for each in sorted(times)))
    assert all(each < 20_000 for each in times)


def test_a_service_that_is_deleted_alone_is_back(guarding: Guarding) -> None:
    guarding.on(V6)
    guarding.guest.output("ipvsadm", "-D", "-t", "10.0.0.1:80")
    guarding.guest.output("ipvsadm", "-D", "-u", "[2001:db8::1]:53")
    assert [(each.family, each.errno) for each in guarding.told(1)] == [(AF_INET6, 0)]
    assert guarding.rules() == RULES.splitlines(keepends=True)[1]


def test_what_is_not_there_at_first_is_made(guarding: Guarding) -> None:
    guarding.flush()
    guarding.on()
    assert guarding.told(2) == [GuardReport(AF_INET, 0, None), GuardReport(AF_INET6, 0, None)]
    assert guarding.rules() == RULES


def test_switched_off_nothing_happens(guarding: Guarding) -> None:
    guarding.on()
    guarding.flush()
    guarding.told(2)
    guarding.client.unguard()
    guarding.client.unguard()
    guarding.flush()
    assert guarding.client.notices(0.3) == Notices([], False)
    assert guarding.rules() == ""


def test_a_new_guard_takes_the_place_of_the_old_one(guarding: Guarding) -> None:
    guarding.on()
    guarding.on(V6)
    guarding.flush()
    assert [each.family for each in guarding.told(1)] == [AF_INET6]
    assert guarding.client.notices(0.2) == Notices([], False)
    assert guarding.rules() == RULES.splitlines(keepends=True)[1]


def test_our_own_changes_and_reads_go_on_beside_it(guarding: Guarding) -> None:
    guarding.on()
    channel, family = guarding.engine.channel, guarding.engine.family
    again = message.with_ack(restore(family, V4))
    failed = failure(channel.exchange(again, 8)[-1])
    assert failed is not None
    assert failed.errno == errno.EEXIST
    assert len(guarding.engine.observe(Ipvs()).foreign) == 2
    guarding.client.unguard()
    delete = message.with_ack(ipvs.encode(DeleteService(service=V4), family, 9))
    assert failure(channel.exchange(delete, 9)[-1]) is None
    assert guarding.client.notices(0.2) == Notices([], False)
    assert guarding.rules() == RULES.splitlines(keepends=True)[1]


def test_it_does_not_fight(guarding: Guarding) -> None:
    guarding.on(V4)
    delete = message.with_ack(ipvs.encode(DeleteService(service=V4), guarding.engine.family, 9))
    codes: list[int] = []
    deadline = time.monotonic() + 240
    while errno.EAGAIN not in codes:
        assert time.monotonic() < deadline, codes
        guarding.guest.output("python3.11", "-I", "-S", "-c", _FIGHT, delete.hex())
        while new := guarding.client.notices(0.1).guarded:
            codes += [each.errno for each in new]
    assert set(codes) == {0, errno.EAGAIN}
    assert codes.index(errno.EAGAIN) >= agent.GUARD_MAX_RESTORES
    # Later it tries again.
    until(lambda: RULES.splitlines()[0] in guarding.rules(), "it is restored")


# Another program in the guest, which is as fast as the guard, however busy the host.
_FIGHT = """
import socket, sys, time
channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
channel.bind((0, 0))
end = time.monotonic() + 2
while time.monotonic() < end:
    channel.send(bytes.fromhex(sys.argv[1]))
    channel.recv(4096)
    time.sleep(0.002)
"""


def test_a_restore_that_the_kernel_refuses_is_told(guarding: Guarding) -> None:
    family = guarding.engine.family
    wrong = Service(protocol="tcp", address="10.0.0.1", port=81, scheduler="none-such")
    guarding.client.guard(PERIOD, [probe(family, wrong)], [restore(family, wrong)])
    assert guarding.told(1)[0] == GuardReport(AF_INET, errno.ENOENT, None)
    assert guarding.rules() == RULES


@pytest.mark.parametrize("again", [False, True])
def test_it_ends_with_the_host(guest: Guest, guarding: Guarding, again: bool) -> None:
    guarding.on()
    guarding.client.close()
    if not again:
        # It hears that nobody is there, in its own time.
        until(lambda: len(agent_pids(guest)) == 1, "the guard has ended")
    with AgentClient(guest.sandbox.agent) as client:
        if again:
            client.kernel_release()
        guarding.flush()
        time.sleep(0.3)
        assert guarding.rules() == ""
        if again:
            assert client.notices(0) == Notices([], False)


def agent_pids(guest: Guest) -> list[str]:
    """Return the process of the agent, and that of its guard if there is one."""
    return guest.output("sh", "-c", "ps | awk '/guest.agent.pyc/ && !/awk/ {print $1}'").split()


def guard_frame(period: int, *parts: tuple[bytes, bytes]) -> bytes:
    heads = [agent.GUARD_SERVICE_HEAD.pack(2, len(one), len(other)) + one + other for one, other in parts]
    return agent.GUARD_HEAD.pack(period) + b"".join(heads)


def test_what_is_not_a_guard_is_refused(guest: Guest, guarding: Guarding) -> None:
    family, before = guarding.engine.family, agent_pids(guest)
    ask, add = probe(family, V4), restore(family, V4)
    question = pack(16, REQUEST | ACK, 1, struct.pack("=BBH", 3, 1, 0) + attribute(2, b"IPVS\0"))
    refused = {
        "1 to 2 services": [
            b"",
            b"\0\0",
            guard_frame(1000),
            guard_frame(1000, *[(ask, add)] * 3),
            guard_frame(499, (ask, add)),
        ],
        "cut short": [
            guard_frame(1000, (ask, add))[:-1],
            guard_frame(1000) + b"\2",
            guard_frame(1000) + agent.GUARD_SERVICE_HEAD.pack(2, 65535, 65535),
        ],
        "one message that asks for it": [
            guard_frame(1000, (add, add)),
            guard_frame(1000, (ask, ask)),
            guard_frame(1000, (ask * 2, add)),
            guard_frame(1000, (ask, add + add)),
            guard_frame(1000, (ask, command(family, FLUSH))),
            guard_frame(1000, (ask, command(family, DELETE_SERVICE, ask[20:]))),
            guard_frame(1000, (question, add)),
            guard_frame(1000, (b"", b"")),
            guard_frame(1000, (pack(family, REQUEST, 1, b""), add)),
        ],
        "netlink message of": [guard_frame(1000, (ask[:-4], add)), guard_frame(1000, (ask, add[:10]))],
        "is not relayed": [
            guard_frame(1000, (command(family + 1, GET_SERVICE), add)),
            guard_frame(1000, (ask, pack(17, REQUEST, 1, b"\1\1\0\0"))),
            guard_frame(1000, (pack(18, REQUEST | DUMP, 1, b"\4" + b"\0" * 15), add)),
        ],
    }
    for words, payloads in refused.items():
        for payload in payloads:
            with pytest.raises(ProtocolError, match=words):
                guarding.client.request(agent.GUARD, payload)
    assert agent_pids(guest) == before
    guarding.flush()
    assert guarding.client.notices(0.2) == Notices([], False)
    assert guarding.rules() == ""


def test_flags_of_the_host_s_messages_do_no_harm(guarding: Guarding) -> None:
    family = guarding.engine.family
    ask, add = probe(family, V4), restore(family, V4)
    dump = pack(family, REQUEST | DUMP | ACK, 7, ask[16:])
    guarding.client.guard(PERIOD, [dump], [add])
    guarding.flush()
    assert [each.errno for each in guarding.told(1)] == [0]
    assert guarding.client.notices(0.2) == Notices([], False)
    # What the kernel answers to nonsense is told once.
    nonsense = command(family, GET_SERVICE, attribute(1, attribute(1, b"\2\0")))
    guarding.client.guard(PERIOD, [nonsense], [add])
    assert [each.errno for each in guarding.told(1)] == [errno.EINVAL]
    assert guarding.client.notices(0.2) == Notices([], False)


def test_a_guard_that_is_killed_is_a_loss(guest: Guest, guarding: Guarding) -> None:
    guarding.on()
    guard = agent_pids(guest)[-1]
    guest.output("kill", "-9", guard)
    assert guarding.client.notices(60) == Notices([], True)
    assert guard not in agent_pids(guest)
    guarding.on()
    guarding.flush()
    guarding.told(2)


def test_an_agent_that_is_killed_takes_it_along(guest: Guest, guarding: Guarding) -> None:
    guarding.on(period=60)
    before = agent_pids(guest)
    assert len(before) == 2
    guest.output("kill", "-9", before[0])
    deadline = time.monotonic() + 60
    while set(before) & set(after := agent_pids(guest)) or not after:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert len(after) == 1


def test_a_refused_guard_ends_the_one_before(guarding: Guarding) -> None:
    guarding.on()
    with pytest.raises(ProtocolError):
        guarding.on(period=0.0001)
    guarding.flush()
    assert guarding.client.notices(0.2) == Notices([], False)
    assert guarding.rules() == ""


# The loop alone, on a played kernel.

FAMILY = 32


@dataclass
class PlayedKernel:
    """Answers with the errno that stands in `codes` for the command, else as the kernel does where all is well."""

    codes: dict[int, int] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    waiting: deque[bytes] = field(default_factory=deque)

    def send(self, data: bytes) -> None:
        self.waiting.extend(map(self._answer, message.messages(data)))

    def recv_into(self, buffer: bytearray) -> int:
        answer = self.waiting.popleft()
        buffer[: len(answer)] = answer
        return len(answer)

    def _answer(self, asked: message.Message) -> bytes:
        number = asked.payload[0]
        self.asked.append(number)
        code = self.codes.get(number, 0)
        if number == GET_SERVICE and code == 0:
            return pack(FAMILY, 0, asked.sequence, asked.payload)
        return pack(message.ERROR, 0, asked.sequence, struct.pack("=i", -code) + b"\0" * 16)


@dataclass
class Alone:
    """A guard loop, whose time a test makes."""

    kernel: PlayedKernel
    loop: agent.GuardLoop
    host: socket.socket
    now: int = 10**9

    def monotonic_ns(self) -> int:
        return self.now

    def look(self, after: float = 0.001) -> list[tuple[int, int, int]]:
        """Look after so many seconds. Return the reports."""
        self.now += round(after * 1e9)
        self.loop.look()
        assert not self.kernel.waiting
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(agent.GUARDED_BODY.unpack(self.host.recv(64)))
        return found


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Alone]:
    played = PlayedKernel()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    services = [
        agent.GuardedService(number, probe(FAMILY, each), restore(FAMILY, each)) for number, each in ((2, V4), (10, V6))
    ]
    with ours, theirs:
        made = Alone(played, agent.GuardLoop(services, cast("socket.socket", played), theirs), ours)
        monkeypatch.setattr(agent, "time", made)
        yield made


def test_a_look_is_one_question_of_each_service(alone: Alone) -> None:
    for _ in range(3):
        assert alone.look() == []
    assert alone.kernel.asked == [GET_SERVICE] * 6


@pytest.mark.parametrize("code", [0, errno.EEXIST, errno.ENOMEM])
def test_what_is_gone_is_put_back_and_told(alone: Alone, code: int) -> None:
    alone.look()
    alone.kernel.codes = {GET_SERVICE: errno.ESRCH, NEW_SERVICE: code}
    assert alone.look(0.0025) == [(AF_INET, code, 2500), (AF_INET6, code, 2500)]
    assert alone.kernel.asked[2:] == [GET_SERVICE, GET_SERVICE, NEW_SERVICE, NEW_SERVICE]


def test_how_long_a_service_was_gone_has_an_end(alone: Alone) -> None:
    alone.kernel.codes = {GET_SERVICE: errno.ESRCH}
    assert alone.look()[0] == (AF_INET, 0, agent.NEVER)
    alone.kernel.codes = {}
    alone.look()
    alone.kernel.codes = {GET_SERVICE: errno.ESRCH}
    assert alone.look(1e6)[0] == (AF_INET, 0, agent.NEVER)


def test_ten_times_within_a_second_are_enough(alone: Alone) -> None:
    alone.kernel.codes = {GET_SERVICE: errno.ESRCH, NEW_SERVICE: errno.EEXIST}
    told = [[code for family, code, _ in alone.look(0.01) if family == AF_INET] for _ in range(300)]
    # Ten, the word that it is enough, and silence until the second is over; and so on.
    second = [[errno.EEXIST]] * 10 + [[errno.EAGAIN]] + [[]] * 89
    assert told == second * 3
    assert alone.kernel.asked.count(NEW_SERVICE) == 60


def test_a_service_that_is_seldom_gone_is_always_put_back(alone: Alone) -> None:
    for _ in range(50):
        alone.kernel.codes = {}
        assert alone.look(0.08) == []
        alone.kernel.codes = {GET_SERVICE: errno.ESRCH}
        assert [code for _, code, _ in alone.look(0.03)] == [0, 0]


def test_another_answer_is_told_once_and_nothing_put_back(alone: Alone) -> None:
    for _ in range(2):
        alone.kernel.codes = {GET_SERVICE: errno.ENOENT}
        assert [code for _, code, _ in alone.look()] == [errno.ENOENT] * 2
        assert [alone.look() for _ in range(5)] == [[]] * 5
        alone.kernel.codes = {}
        alone.look()
    assert NEW_SERVICE not in alone.kernel.asked


def test_a_host_that_does_not_read_does_not_stop_it(alone: Alone) -> None:
    alone.kernel.codes = {GET_SERVICE: errno.ESRCH}
    for _ in range(5000):
        alone.now += 10**9
        alone.loop.look()
    assert 0 < len(alone.look(1)) < 10_000
    assert [code for _, code, _ in alone.look(1)] == [0, 0]
