"""Many dumps in a row: over a local socket, over the client to a real guest, and from guests that lie."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import cycle, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import ChannelError, ProtocolError
from reconciler.guest import agent
from reconciler.guest import kernel as guest_kernel
from reconciler.guest.client import AgentClient
from reconciler.guest.kernel import DUMPS_AT_ONCE, GuestChannel, GuestKernel
from reconciler.netlink import budget, conntrack, interface, ipvs, message, route
from reconciler.netlink.channel import GENERIC, NETFILTER, ROUTE, LocalKernel, SocketChannel
from reconciler.netlink.message import ACK, DONE, DUMP, ERROR, REQUEST, Message, failure, pack
from tests.conftest import Kernel, ip
from tests.examples import examples
from tests.guest.peer import Script, frame, greet, peer, read_request, wait_for_end
from tests.machine import Guest

# A link is not asked for by its index in a dump (rtnl_valid_dump_ifinfo_req).
REFUSED = pack(message.GET_LINK, REQUEST | DUMP, 2, struct.pack("=BxHiII", 0, 0, 9, 0, 0))


def singly(channel: SocketChannel | GuestChannel, requests: list[bytes]) -> list[Message]:
    return [answer for each in requests for answer in channel.exchange(each, message.sequence_of(each))]


# A local socket.


@pytest.fixture
def namespace(kernel: Kernel) -> Iterator[LocalKernel]:
    name = kernel.namespace()
    ip("tuntap", "add", "dev", "tap-1", "mode", "tap", namespace=name)
    ip("address", "add", "192.0.2.1/24", "dev", "tap-1", namespace=name)
    ip("address", "add", "2001:db8::1/64", "dev", "tap-1", "nodad", namespace=name)
    lines = [f"route add blackhole {net}/{32 if '.' in net else 128}" for net in networks()]
    subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(lines), text=True, check=True)
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    yield LocalKernel(descriptor)
    os.close(descriptor)


def networks() -> list[str]:
    return [f"10.0.{n // 250}.{n % 250}" for n in range(1000)] + [f"2001:db8::{n:x}" for n in range(2, 502)]


def local_requests() -> list[bytes]:
    return [
        interface.dump_links_request(1),
        interface.dump_addresses_request(2),
        route.dump_request(socket.AF_INET, 3),
        route.dump_request(socket.AF_INET6, 4),
        interface.dump_addresses_request(5),
        interface.dump_links_request(6),
    ]


def test_dumps_of_several_kinds_give_what_each_alone_does(namespace: LocalKernel) -> None:
    with closing(namespace.open(ROUTE)) as one, closing(namespace.open(ROUTE)) as many:
        expected = singly(one, local_requests())
        assert len(expected) > 1500
        # Twice, as what the kernel makes room for depends on what was read before.
        assert many.dumps(local_requests()) == expected
        assert many.dumps(local_requests()) == expected
        assert many.dumps([]) == []


def test_a_refused_dump_is_an_answer_among_the_others(namespace: LocalKernel) -> None:
    first, last = interface.dump_links_request(1), interface.dump_addresses_request(3)
    with closing(namespace.open(ROUTE)) as channel:
        answers = channel.dumps([first, REFUSED, last])
        alone = singly(channel, [first]), singly(channel, [last])
    assert [str(failure(answer)) for answer in answers if answer.sequence == 2] == [
        "Invalid argument: Filter by device index not supported for link dumps"
    ]
    assert ([m for m in answers if m.sequence == 1], [m for m in answers if m.sequence == 3]) == alone


# A real guest.

SERVICES = [
    *(f"-A -t 10.0.{n // 250}.{n % 250}:80 -s wrr" for n in range(150)),
    *(f"-A -u [2001:db8::{n:x}]:53 -s rr" for n in range(1, 51)),
    "-A -f 7 -s lc",
]


def servers(service: str) -> list[str]:
    words = service.split()[1:3]
    form = "[2001:db8:9::{}]:8080" if "[" in service else "192.0.2.{}:8080"
    # None, or up to six, or more than one read of a dump takes.
    count = 100 if words[0] == "-f" else SERVICES.index(service) % 7
    return [f"-a {' '.join(words)} -r {form.format(n)} -m -w {n}" for n in range(1, count + 1)]


@pytest.fixture
def channel(guest: Guest, client: AgentClient) -> Iterator[GuestChannel]:
    """The channel to a table of services; the table is gone afterwards."""
    kernel = GuestKernel(client)
    client.request(agent.MODPROBE, b"ip_vs")
    # What has no address has no way to a server.
    guest.output("ip", "addr", "add", "10.9.9.9/32", "dev", "lo")
    lines = "\n".join(line for service in SERVICES for line in (service, *servers(service)))
    try:
        loaded = guest.run("ipvsadm", "-R", stdin=lines.encode() + b"\n")
        assert (loaded.status, loaded.stderr) == (0, b""), loaded
        yield kernel.open(GENERIC)
    finally:
        guest.output("ipvsadm", "-C")
        guest.output("ip", "addr", "del", "10.9.9.9/32", "dev", "lo")


def family_of(channel: GuestChannel) -> int:
    return ipvs.decode_family(channel.exchange(ipvs.family_request(1), 1)[0].payload)


def identities(channel: GuestChannel, family: int) -> list[bytes]:
    answers = channel.exchange(ipvs.dump_services_request(family, 2), 2)
    return [ipvs.identity(answer.payload) for answer in answers if answer.type == family]


def server_requests(channel: GuestChannel) -> list[bytes]:
    family = family_of(channel)
    found = identities(channel, family)
    return [ipvs.dump_servers_request(family, each, sequence) for sequence, each in enumerate(found, 10)]


def test_the_servers_of_many_services_are_what_each_alone_has(channel: GuestChannel) -> None:
    requests = server_requests(channel)
    assert len(requests) == len(SERVICES)
    answers = channel.dumps(requests)
    assert answers == singly(channel, requests)
    assert sum(answer.type == DONE for answer in answers) == len(SERVICES)
    assert sum(answer.type != DONE for answer in answers) == sum(len(servers(service)) for service in SERVICES)
    assert channel.dumps([]) == []


def test_more_dumps_than_a_frame_takes(channel: GuestChannel) -> None:
    family = family_of(channel)
    found = list(islice(cycle(identities(channel, family)), DUMPS_AT_ONCE + 300))
    requests = [ipvs.dump_servers_request(family, each, sequence) for sequence, each in enumerate(found, 10)]
    answers = channel.dumps(requests)
    assert [answer.sequence for answer in answers if answer.type == DONE] == list(range(10, 10 + len(found)))
    expected = {identity: [m[3] for m in channel.dumps([requests[at]])] for at, identity in enumerate(found[:201])}
    payloads: dict[int, list[bytes]] = {}
    for answer in answers:
        payloads.setdefault(answer.sequence, []).append(answer.payload)
    assert payloads == {sequence: expected[identity] for sequence, identity in enumerate(found, 10)}


def test_what_is_refused_or_not_there_leaves_the_others_answered(channel: GuestChannel) -> None:
    family = family_of(channel)
    first, *_, last = server_requests(channel)
    # IPVS_CMD_NEW_SERVICE cannot be dumped; a service that is not there has no servers.
    refused = pack(family, REQUEST | DUMP, 3000, struct.pack("=BBH", 1, 1, 0))
    missing = ipvs.dump_servers_request(family, ipvs.encode_identity(("tcp", "10.99.0.1", 80)), 3001)
    answers = channel.dumps([refused, first, missing, refused, last])
    assert answers == singly(channel, [refused, first, missing, refused, last])
    assert [str(failure(m)) for m in answers if m.sequence == 3000] == ["Operation not supported"] * 2
    assert [(m.type, failure(m)) for m in answers if m.sequence == 3001] == [(DONE, None)]
    assert answers[-1].sequence == message.sequence_of(last)


def test_after_a_refusal_at_the_end_the_channel_goes_on(channel: GuestChannel) -> None:
    family = family_of(channel)
    refused = pack(family, REQUEST | DUMP, 3000, struct.pack("=BBH", 1, 1, 0))
    for _ in range(2):
        assert [m.type for m in channel.dumps([refused])] == [ERROR]
    requests = server_requests(channel)[:3]
    assert channel.dumps(requests) == singly(channel, requests)


def test_a_frame_with_what_is_not_of_ipvs_is_refused_whole(channel: GuestChannel) -> None:
    family = family_of(channel)
    # IPVS_CMD_FLUSH, and all families of generic netlink.
    flush = pack(family, REQUEST | ACK, 1, struct.pack("=BBH", 17, 1, 0))
    foreign = pack(16, REQUEST | DUMP, 2, struct.pack("=BBH", 3, 1, 0))
    requests = server_requests(channel)
    for frame_ in ([flush, foreign], [flush, *requests[:3], foreign, *requests[3:6]]):
        with pytest.raises(ProtocolError, match="message type 16 of netlink protocol 16 is not relayed"):
            channel.dumps(frame_)
    assert len(identities(channel, family)) == len(SERVICES)
    assert channel.dumps(requests) == singly(channel, requests)


def test_a_request_that_is_cut_is_refused_whole(channel: GuestChannel) -> None:
    requests = server_requests(channel)
    with pytest.raises(ProtocolError, match="netlink message of"):
        channel.dumps([*requests[:2], requests[2][:-4]])
    assert channel.dumps(requests[:3]) == singly(channel, requests[:3])


def test_dumps_of_connection_tracking(guest: Guest, client: AgentClient) -> None:
    kernel = GuestKernel(client)
    client.request(agent.MODPROBE, b"nf_conntrack_netlink")
    for address in ("10.0.0.1", "10.0.0.2"):
        ends = ("-s", "10.1.0.1", "-d", address, "--sport", "1", "--dport", "53")
        assert guest.run("conntrack", "-I", "-p", "udp", *ends, "-t", "600").status == 0
    channel = kernel.open(NETFILTER)
    requests = [conntrack.dump_request(f"10.0.0.{n}", "udp", n) for n in (1, 2, 3)]
    answers = channel.dumps(requests)
    assert [(m.type, m.sequence) for m in answers] == [(0x100, 1), (DONE, 1), (0x100, 2), (DONE, 2), (DONE, 3)]
    guest.run("conntrack", "-F")


# Guests that lie.

ASKED = [pack(20, REQUEST | DUMP, sequence, bytes(4)) for sequence in (7, 8, 9)]


def end(sequence: int, kind: int = DONE) -> bytes:
    return pack(kind, 2, sequence, struct.pack("=i", 0 if kind == DONE else -22) + bytes(16 if kind == ERROR else 0))


def answering(*answers: bytes) -> Script:
    """Answer each request with the next of these bytes."""

    def script(channel: socket.socket) -> None:
        greet(channel)
        for data in answers:
            read_request(channel)
            channel.sendall(data)
        wait_for_end(channel)

    return script


def dumps(path: str) -> list[Message]:
    with AgentClient(path, 5) as client:
        return GuestChannel(client, GENERIC).dumps(ASKED)


WHOLE = end(7) + pack(20, 2, 8, b"word") + end(8, ERROR) + end(9)


def test_it_gives_what_the_guest_answers_in_order() -> None:
    script = answering(frame(1, agent.MORE, WHOLE[:20]) + frame(1, agent.DONE, WHOLE[20:]))
    with peer(script) as path:
        answers = dumps(path)
    assert answers == message.messages(WHOLE)
    assert [answer.sequence for answer in answers if answer.type == ERROR] == [8]


def test_it_asks_for_as_many_as_a_frame_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_kernel, "DUMPS_AT_ONCE", 2)
    asked: list[agent.Frame] = []

    def script(channel: socket.socket) -> None:
        greet(channel)
        for answer in (end(7) + end(8), end(9)):
            asked.append(read_request(channel))
            channel.sendall(frame(len(asked), agent.DONE, answer))

    with peer(script) as path:
        assert [answer.sequence for answer in dumps(path)] == [7, 8, 9]
    head = agent.NETLINK_HEAD.pack(GENERIC, 0)
    assert asked == [(1, agent.DUMPS, head + ASKED[0] + ASKED[1]), (2, agent.DUMPS, head + ASKED[2])]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (frame(1, agent.DONE), "does not end with the one to the last message"),
        (frame(1, agent.DONE, end(7) + end(8)), "does not end with the one to the last message"),
        (frame(1, agent.DONE, WHOLE + end(8)), "does not end with the one to the last message"),
        (frame(1, agent.DONE, WHOLE + pack(20, 2, 9, b"word")), "does not end with the one to the last message"),
        (frame(1, agent.DONE, WHOLE[:-1]), "netlink message"),
        (frame(1, agent.MORE, WHOLE[:-1]) + frame(1, agent.DONE, WHOLE[-1:]), "netlink message"),
        (frame(2, agent.DONE, WHOLE), "answered request 2"),
        (frame(1, agent.DUMPS, WHOLE), "kind 6"),
        (frame(1, agent.FAILED, b"\0\1no"), "agent: no"),
    ],
)
def test_what_the_protocol_forbids_is_refused(answer: bytes, expected: str) -> None:
    with peer(answering(answer)) as path, pytest.raises(ProtocolError, match=expected):
        dumps(path)


def test_the_answer_to_each_frame_has_its_own_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_kernel, "DUMPS_AT_ONCE", 2)
    # The first one gives all, the second one nothing.
    script = answering(frame(1, agent.DONE, WHOLE), frame(2, agent.DONE))
    with peer(script) as path, pytest.raises(ProtocolError, match="does not end"):
        dumps(path)


def test_too_many_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "OBJECTS", 3)
    with (
        peer(answering(frame(1, agent.DONE, WHOLE))) as path,
        pytest.raises(ProtocolError, match="more than 3 objects"),
    ):
        dumps(path)


def test_a_guest_that_does_not_answer_is_an_error_in_time() -> None:
    with peer(answering(b"")) as path, AgentClient(path, 0.3) as client, pytest.raises(ChannelError):
        GuestChannel(client, GENERIC).dumps(ASKED)


ANSWERS = st.lists(
    st.sampled_from([
        *(frame(1, kind, data) for kind in (agent.MORE, agent.DONE) for data in (WHOLE, end(9), end(8), b"")),
        frame(0, agent.NOTIFY, end(9)),
    ])
    | st.binary(max_size=40)
    | st.builds(
        frame,
        st.integers(0, 2),
        st.sampled_from([agent.MORE, agent.DONE, agent.FAILED]),
        st.binary(max_size=64),
    ),
    max_size=5,
)  # fmt: skip


@settings(max_examples=examples(60), deadline=None)
@given(ANSWERS)
def test_any_answer_ends_with_the_last_dump_or_is_one_of_two_errors(answer: list[bytes]) -> None:
    def script(channel: socket.socket) -> None:
        greet(channel)
        read_request(channel)
        channel.sendall(b"".join(answer))

    with peer(script) as path:
        try:
            found = dumps(path)
        except (ProtocolError, ChannelError):
            return
    assert found[-1].sequence == 9
    assert found[-1].type in {DONE, ERROR}
