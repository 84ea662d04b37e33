"""The host's end of the client, against guests that lie, drip and flood."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError, SandboxGoneError
from reconciler.guest import agent
from reconciler.guest.client import GUARDED_COUNT, NOTICES_SIZE, AgentClient, GuardReport, Notices
from reconciler.guest.connection import QUEUE_SIZE, READ_SIZE
from reconciler.guest.kernel import GuestChannel
from reconciler.model.ipvs import Service
from reconciler.netlink import ipvs
from reconciler.netlink.budget import BYTES
from reconciler.netlink.message import DONE, Message, attribute, pack
from reconciler.netlink.sections import GROUPS
from reconciler.operations.ipvs import AddService
from tests.examples import examples
from tests.guest.peer import RELEASE, Script, frame, greet, hello, peer, read_greeting, read_request, wait_for_end

REQUEST = pack(18, 0x301, 7, b"\0" * 16)
END = pack(DONE, 2, 7, struct.pack("=i", 0))
KINDS = (agent.MORE, agent.DONE, agent.FAILED, agent.NOTIFY, agent.LOST, agent.GUARDED, agent.HELLO, 999)


def exchange(path: str, timeout: float = 60.0) -> list[Message]:
    with AgentClient(path, timeout) as client:
        return GuestChannel(client, agent.ROUTE).exchange(REQUEST, 7)


def answering(*frames: bytes) -> Script:
    """Answer the first request with these bytes."""

    def script(channel: socket.socket) -> None:
        greet(channel)
        read_request(channel)
        for data in frames:
            channel.sendall(data)
        wait_for_end(channel)

    return script


def test_it_gives_what_the_kernel_answers() -> None:
    link = pack(16, 2, 7, b"\1" * 16)
    with peer(answering(frame(1, agent.MORE, link), frame(1, agent.DONE, link + END))) as path:
        found = exchange(path)
    assert found == [Message(16, 2, 7, b"\1" * 16)] * 2 + [Message(DONE, 2, 7, b"\0" * 4)]


def test_it_says_what_it_asks_and_of_whom() -> None:
    asked: list[agent.Frame] = []

    def script(channel: socket.socket) -> None:
        greet(channel)
        asked.append(read_request(channel))
        channel.sendall(frame(1, agent.DONE, END))

    with peer(script) as path, AgentClient(path) as client:
        assert client.kernel_release() == RELEASE.decode()
        GuestChannel(client, agent.GENERIC).exchange(REQUEST, 7)
    assert asked == [(1, agent.NETLINK, struct.pack("!HI", 16, 7) + REQUEST)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (frame(2, agent.DONE, END), "answered request 2"),
        (frame(1, agent.DONE, b""), "does not end with"),
        (frame(1, agent.DONE, END[:-1]), "netlink message"),
        (frame(1, agent.DONE, pack(DONE, 2, 8, b"\0" * 4)), "does not end with"),
        (frame(1, 77, b""), "kind 77"),
        (frame(0, agent.DONE, b""), "not requested"),
        (frame(1, agent.FAILED, b"\0"), "without an error number"),
        (frame(1, agent.FAILED, b"\0\1no"), "agent: no"),
        (frame(0, agent.NOTIFY, b"\1"), "netlink message"),
        (frame(1, agent.GUARDED, agent.GUARDED_BODY.pack(2, 0, 0)), "kind 38"),
        (frame(0, agent.GUARDED, agent.GUARDED_BODY.pack(3, 0, 0)), "address family 3"),
        (frame(0, agent.GUARDED, agent.GUARDED_BODY.pack(2, 0, 0) + b"\2"), "report of its guard of 8 bytes"),
        (frame(0, agent.GUARDED), "report of its guard of 0 bytes"),
        (agent.HEADER.pack(agent.MAX_FRAME + 1, 1, agent.DONE), "announced a frame"),
        (agent.HEADER.pack(0xFFFFFFFF, 1, agent.DONE), "announced a frame"),
    ],
)
def test_what_the_protocol_forbids_is_refused(answer: bytes, expected: str) -> None:
    with peer(answering(answer)) as path, pytest.raises(ProtocolError, match=expected):
        exchange(path)


def test_a_failure_of_time_or_room_can_be_tried_again() -> None:
    script = answering(frame(1, agent.FAILED, b"\0\x6eslow \x1b[31mkernel"))
    with peer(script) as path, pytest.raises(ChannelError, match=r"^the guest's agent: slow \x1b\[31mkernel$"):
        exchange(path)


def test_parts_without_end_are_too_many() -> None:
    part = frame(1, agent.MORE, b"\0" * (1 << 20))
    sent = 0

    def script(channel: socket.socket) -> None:
        nonlocal sent
        greet(channel)
        read_request(channel)
        with suppress(OSError):
            while True:
                channel.sendall(part)
                sent += len(part)

    with peer(script) as path, pytest.raises(ProtocolError, match="more than 16 MiB"):
        exchange(path)
    assert sent < BYTES + (8 << 20)


def test_empty_parts_without_end_are_too_many() -> None:
    parts = frame(1, agent.MORE) * 10_000

    def script(channel: socket.socket) -> None:
        greet(channel)
        with suppress(OSError):
            while True:
                channel.sendall(parts)

    with peer(script) as path, pytest.raises(ProtocolError, match="more than 100,000 objects"):
        exchange(path, 60)


@pytest.mark.parametrize("greets", [True, False])
def test_a_drip_does_not_move_the_deadline(greets: bool) -> None:
    def script(channel: socket.socket) -> None:
        if greets:
            greet(channel)
            channel.sendall(agent.HEADER.pack(agent.MAX_FRAME, 1, agent.MORE))
        with suppress(OSError):
            while True:
                channel.sendall(b"\0")
                time.sleep(0.02)

    # Whoever would wait for more waits for ever.
    with peer(script) as path, pytest.raises(ChannelError, match="in time"):
        exchange(path, 0.3)


def test_a_flood_does_not_move_the_deadline() -> None:
    def script(channel: socket.socket) -> None:
        with suppress(OSError):
            while True:
                channel.sendall(b"\0" * 65536)

    # Whoever would wait for more waits for ever.
    with peer(script) as path, pytest.raises(ChannelError, match="in time"):
        exchange(path, 0.3)


def test_silence_ends_at_the_deadline() -> None:
    started = time.monotonic()
    with peer(wait_for_end) as path, pytest.raises(ChannelError, match="did not answer in time"):
        exchange(path, 0.3)
    assert 0.3 <= time.monotonic() - started < 30


def test_one_that_does_not_read_ends_at_the_deadline() -> None:
    done = threading.Event()

    def script(channel: socket.socket) -> None:
        greet(channel)
        done.wait(60)

    with peer(script) as path, AgentClient(path, 0.3) as client:
        with pytest.raises(ChannelError, match="in time"):
            client.request(agent.NETLINK, b"\0" * agent.MAX_FRAME)
        done.set()


def test_a_flood_while_it_sends_waits_outside() -> None:
    flood = frame(0, agent.NOTIFY, pack(16, 0, 0, b"\0" * 4080)) * 16
    sent = 0

    def script(channel: socket.socket) -> None:
        nonlocal sent
        greet(channel)
        channel.settimeout(1)
        with suppress(OSError):
            while True:
                channel.sendall(flood)
                sent += len(flood)

    with peer(script) as path, AgentClient(path) as client:
        connection = client._connection
        client.kernel_release()
        connection.push(1, agent.NETLINK, b"\0" * agent.MAX_FRAME)
        deadline = time.monotonic() + 0.5
        with suppress(ChannelError):
            while connection.pending:
                connection.step(deadline)
        assert connection._size <= QUEUE_SIZE + READ_SIZE
    assert sent < QUEUE_SIZE + (2 << 20)


def test_the_socket_closed_in_an_answer() -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        read_request(channel)
        channel.sendall(frame(1, agent.DONE, END)[:-3])

    with peer(script) as path, pytest.raises(ChannelError, match="QEMU closed the connection"):
        exchange(path)


def test_what_an_earlier_client_did_not_fetch_is_discarded() -> None:
    def script(channel: socket.socket) -> None:
        mark = read_greeting(channel)
        stale = (
            agent.MAGIC
            + os.urandom(agent.NONCE_SIZE)
            + hello()
            + frame(1, agent.DONE, b"stale")
            + frame(1, agent.MORE)[:5]
        )
        channel.sendall(stale * 1000 + mark + hello())
        read_request(channel)
        channel.sendall(frame(1, agent.DONE, END))

    with peer(script) as path:
        assert [m.type for m in exchange(path)] == [DONE]


@pytest.mark.parametrize(
    ("introduction", "expected"),
    [
        (hello(1), "speaks version 1 of the protocol, this program version 4; copy the agent"),
        (frame(0, agent.DONE), "does not introduce itself"),
    ],
)
def test_another_agent_is_refused(introduction: bytes, expected: str) -> None:
    def script(channel: socket.socket) -> None:
        channel.sendall(read_greeting(channel) + introduction)
        wait_for_end(channel)

    with peer(script) as path, pytest.raises(ProtocolError, match=expected):
        exchange(path)


def test_after_an_error_it_begins_anew_on_the_same_connection() -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        first, _, _ = read_request(channel)
        # Silence until the host begins anew, then the late answer, then the greeting.
        mark = read_greeting(channel)
        channel.sendall(frame(first, agent.DONE, END) + mark + hello())
        second, _, _ = read_request(channel)
        channel.sendall(frame(second, agent.DONE, pack(16, 2, 7, b"new!") + END))

    with peer(script) as path, AgentClient(path) as client:
        channel = GuestChannel(client, agent.ROUTE)
        client.kernel_release()
        client._timeout = 0.5
        with pytest.raises(ChannelError):
            channel.exchange(REQUEST, 7)
        client._timeout = 60
        assert channel.exchange(REQUEST, 7)[0].payload == b"new!"


def test_half_a_request_is_sent_to_its_end_before_it_begins_anew() -> None:
    sizes: list[int] = []
    given_up = threading.Event()

    def script(channel: socket.socket) -> None:
        greet(channel)
        given_up.wait(60)
        sizes.append(len(read_request(channel)[2]))
        greet(channel)
        request, _, _ = read_request(channel)
        channel.sendall(frame(request, agent.DONE))

    with peer(script) as path, AgentClient(path) as client:
        client.kernel_release()
        client._timeout = 0.3
        with pytest.raises(ChannelError):
            client.request(agent.NETLINK, b"\0" * agent.MAX_FRAME)
        given_up.set()
        client._timeout = 60
        assert client.request(agent.SYSCTL_GET, b"x") == [b""]
    assert sizes == [agent.MAX_FRAME]


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from(KINDS), st.binary(max_size=64)).map(
                lambda f: frame(*f)
            ),
            st.sampled_from([frame(1, agent.DONE, END), frame(1, agent.MORE, END), frame(0, agent.NOTIFY, END)]),
            st.binary(max_size=40),
        ),
        max_size=6,
    )
)
def test_any_answer_is_an_answer_or_one_of_two_errors(answer: list[bytes]) -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        read_request(channel)
        channel.sendall(b"".join(answer))

    with peer(script) as path:
        try:
            found = exchange(path)
        except (ProtocolError, ChannelError):
            return
    assert (found[-1].type, found[-1].sequence) == (DONE, 7)


def test_notifications_wait_within_bounds() -> None:
    notice = pack(16, 0, 0, b"\0" * 4080)
    count = NOTICES_SIZE // len(notice) + 100

    def script(channel: socket.socket) -> None:
        greet(channel)
        request, _, _ = read_request(channel)
        channel.sendall(frame(request, agent.DONE))
        request, _, _ = read_request(channel)
        channel.sendall(frame(0, agent.NOTIFY, notice) * count + frame(request, agent.DONE))
        wait_for_end(channel)

    with peer(script) as path, AgentClient(path) as client:
        client.subscribe(GROUPS)
        client.read_sysctls(["net.ipv4.ip_forward"])
        found = client.notices(0)
        assert found.lost
        assert len(found.messages) == NOTICES_SIZE // len(notice)
        assert client.notices(0.05) == Notices([], False)


def test_a_subscription_that_an_error_ended_is_a_loss() -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        request, _, _ = read_request(channel)
        channel.sendall(frame(request, agent.DONE))
        wait_for_end(channel)

    with peer(script) as path, AgentClient(path) as client:
        client.subscribe(GROUPS)
        assert client.notices(0.05) == Notices([], False)
        client._timeout = 0.3
        with pytest.raises(ChannelError):
            client.read_sysctls(["net.ipv4.ip_forward"])
        assert client.notices(0.05) == Notices([], True)


SERVICES = [
    Service(protocol="tcp", address="10.0.0.1", port=80, scheduler="wrr"),
    Service(protocol="fwmark", address="::", port=7, scheduler="rr"),
]
PROBES = [pack(32, 1, 1, b"\4\1\0\0" + attribute(1, ipvs.encode_identity(each.key))) for each in SERVICES]
RESTORES = [ipvs.encode(AddService(service=each), 32, 2) for each in SERVICES]


def guarded_script(asked: list[agent.Frame], answers: list[bytes]) -> Script:
    def script(channel: socket.socket) -> None:
        greet(channel)
        for answer in answers:
            asked.append(read_request(channel))
            channel.sendall(answer + frame(asked[-1][0], agent.DONE))
        wait_for_end(channel)

    return script


def test_a_guard_is_asked_for_and_heard() -> None:
    asked: list[agent.Frame] = []
    told = frame(0, agent.GUARDED, agent.GUARDED_BODY.pack(10, 17, 2500))
    told += frame(0, agent.GUARDED, agent.GUARDED_BODY.pack(2, 0, agent.NEVER))
    with peer(guarded_script(asked, [b"", told])) as path, AgentClient(path) as client:
        client.guard(0.002, PROBES, RESTORES)
        assert client.notices(0.05) == Notices([], False)
        client.unguard()
        assert client.notices(60) == Notices([], False, (GuardReport(10, 17, 0.0025), GuardReport(2, 0, None)))
        assert client.notices(0.05) == Notices([], False)
    parts = [
        agent.GUARD_SERVICE_HEAD.pack(family, len(probe), len(restore)) + probe + restore
        for family, probe, restore in zip((2, 10), PROBES, RESTORES, strict=True)
    ]
    assert asked == [(1, agent.GUARD, struct.pack("!I", 2000) + b"".join(parts)), (2, agent.GUARD, b"\0" * 4)]


def test_what_the_guest_tells_of_its_guard_waits_within_bounds() -> None:
    flood = frame(0, agent.GUARDED, agent.GUARDED_BODY.pack(2, 0, 0)) * (GUARDED_COUNT + 100)
    with peer(guarded_script([], [flood])) as path, AgentClient(path) as client:
        client.guard(0.002, PROBES, RESTORES)
        found = client.notices(0)
        assert (len(found.guarded), found.lost) == (GUARDED_COUNT, True)


def test_a_guard_that_an_error_ended_is_a_loss() -> None:
    with peer(guarded_script([], [b"", b""])) as path, AgentClient(path) as client:
        client.guard(0.002, PROBES, RESTORES)
        with pytest.raises(ValueError, match="zip"):
            client.guard(0.002, PROBES, RESTORES[:1])
        client._begin_anew()
        assert client.notices(0.05) == Notices([], True)
    with peer(guarded_script([], [b"", b""])) as path, AgentClient(path) as client:
        client.guard(0.002, PROBES, RESTORES)
        client.unguard()
        client._begin_anew()
        assert client.notices(0.05) == Notices([], False)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(SandboxGoneError, match=r"no QEMU serves .*: the sandbox is not running"):
        AgentClient(str(tmp_path / "gone" / "agent.sock"))
    with pytest.raises(SandboxGoneError, match="no QEMU serves"):
        AgentClient(str(tmp_path / "agent.sock"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
    with pytest.raises(SandboxGoneError, match="no QEMU serves"):
        AgentClient(str(tmp_path / "agent.sock"))


def test_a_second_client_is_turned_away_at_once() -> None:
    with peer(wait_for_end) as path:
        with AgentClient(path), pytest.raises(BusyError, match="another process is connected"):
            AgentClient(path)
        AgentClient(path).close()


@pytest.mark.parametrize("payload", [b"\0" * (agent.MAX_FRAME + 1), b"x" + agent.MAGIC])
def test_what_must_not_be_sent_is_not(payload: bytes) -> None:
    with peer(answering()) as path, AgentClient(path) as client, pytest.raises(HostError):
        client.request(agent.NETLINK, payload)
