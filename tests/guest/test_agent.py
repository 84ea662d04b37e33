"""The agent without a machine: over a socket pair, on this host's kernel, in a network namespace of its own."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.guest import agent
from reconciler.guest.agent import Decoder, Frame
from reconciler.netlink import interface, message, sections
from reconciler.netlink.message import REQUEST, attribute, messages, pack
from reconciler.values import dataclass, field
from tests.examples import examples
from tests.guest.peer import frame

SERVE = """
import sys
from reconciler.guest import agent
agent.KERNEL_TIMEOUT = float(sys.argv[2])
agent.serve(agent.Agent(agent.Port(lambda: int(sys.argv[1]))))
"""
DUMP_LINKS = interface.dump_links_request(7)


@dataclass
class Host:
    """The host's end, with an agent at the other."""

    channel: socket.socket
    process: subprocess.Popen[bytes]
    mark: bytes = b""
    decoder: Decoder = field(default_factory=lambda: Decoder(b"unset", 0))
    waiting: list[Frame] = field(default_factory=list)

    def greet(self) -> list[Frame]:
        self.mark = agent.MAGIC + os.urandom(agent.NONCE_SIZE).replace(agent.MAGIC[:1], b"\0")
        self.decoder = Decoder(self.mark, 0)
        self.waiting = []
        self.channel.sendall(self.mark)
        return [self.receive(), self.receive()]

    def receive(self) -> Frame:
        while not self.waiting:
            data = self.channel.recv(65536)
            assert data
            self.waiting = self.decoder.feed(data)
        return self.waiting.pop(0)

    def ask(self, kind: int, payload: bytes = b"", request: int = 5) -> Frame:
        self.channel.sendall(frame(request, kind, payload))
        return self.receive()

    def subscribe(self, groups: int) -> Frame:
        return self.ask(agent.SUBSCRIBE, agent.SUBSCRIBE_BODY.pack(groups))

    def netlink(self, protocol: int, requests: bytes, last: int = 7) -> Frame:
        self.channel.sendall(netlink_frame(protocol, requests, last))
        return self.receive()


def netlink_frame(protocol: int, requests: bytes, last: int = 7) -> bytes:
    return frame(5, agent.NETLINK, agent.NETLINK_HEAD.pack(protocol, last) + requests)


@pytest.fixture
def host(request: pytest.FixtureRequest, root: None) -> Iterator[Host]:
    """An agent; a parameter is the time that it gives the kernel."""
    timeout = getattr(request, "param", agent.KERNEL_TIMEOUT)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(60)
        command = ["unshare", "-n", sys.executable, "-c", SERVE, str(theirs.fileno()), str(timeout)]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            made = Host(ours, process)
            made.greet()
            yield made
            process.kill()


def failure(answer: Frame) -> tuple[int, str]:
    request, kind, payload = answer
    assert (request, kind) == (5, agent.FAILED)
    return agent.FAILED_HEAD.unpack_from(payload)[0], payload[agent.FAILED_HEAD.size :].decode()


def test_it_echoes_the_mark_and_says_what_it_is(host: Host) -> None:
    greeting, hello = host.greet()
    assert greeting == (0, agent.GREETING, b"")
    assert hello == (0, agent.HELLO, agent.HELLO_HEAD.pack(5) + os.uname().release.encode())


@pytest.mark.parametrize("address", ["", "02:00:00:00:00:0", "02:00:00:00:00:0G", "02:00:00:00:00:01:02", "a]\n[b"])
def test_network_managers_are_told_of_mac_addresses_only(host: Host, address: str) -> None:
    answer = host.ask(agent.UNMANAGED_SET, f"02:00:00:00:00:01 {address or '02:00:00:00:00:01 ' * 1024}".encode())
    assert failure(answer) == (errno.EINVAL, "expected at most 1024 MAC addresses")


def test_it_relays_a_dump(host: Host) -> None:
    request, kind, payload = host.netlink(agent.ROUTE, DUMP_LINKS)
    assert (request, kind) == (5, agent.DONE)
    links = [interface.decode_link(each.payload) for each in messages(payload) if each.type == message.NEW_LINK]
    assert [link.name for link in links] == ["lo"]


def test_a_long_answer_comes_in_parts(host: Host) -> None:
    # Each refusal of a batch is an answer of its own; only the last asks for one.
    batch = b"".join(pack(message.DELETE_ROUTE, REQUEST, number, b"\2" + b"\0" * 11) for number in range(1, 2001))
    host.channel.sendall(netlink_frame(agent.ROUTE, batch, 2000))
    parts = [host.receive()]
    while parts[-1][1] == agent.MORE:
        parts.append(host.receive())
    assert len(parts) > 1
    answers = [each for _, _, payload in parts for each in messages(payload)]
    assert [each.sequence for each in answers] == list(range(1, 2001))
    assert all(message.failure(each) for each in answers)


def nft(name: bytes) -> bytes:
    """The head of a message of nftables, and the name of the table."""
    return b"\2\0\0\0" + attribute(1, name)


@pytest.mark.parametrize(
    ("protocol", "requests", "code"),
    [
        (9, DUMP_LINKS, errno.EPERM),
        (agent.NETFILTER, pack(0x0A00, 0x301, 7, b"\0" * 4), errno.EPERM),
        (agent.NETFILTER, pack(0x0010, REQUEST, 7, b"\0" * 4), errno.EPERM),
        (agent.NETFILTER, pack(0x0101, 0x301, 7, b"\0" * 4) + DUMP_LINKS, errno.EPERM),
        (agent.NETFILTER, pack(0x0101, 0x301, 7, b"\0" * 4)[:-1], errno.EINVAL),
        # The tables of others, a second name, which the kernel would take, NFT_MSG_GETRULE, and another transaction.
        (agent.NETFILTER, pack(0x0A02, 0x5, 7, nft(b"filter\0")), errno.EPERM),
        (agent.NETFILTER, pack(0x0A02, 0x5, 7, nft(agent.TABLE) + attribute(1, b"filter\0")), errno.EPERM),
        (agent.NETFILTER, pack(0x0A02, 0x5, 7, nft(agent.TABLE) + attribute(0x8001, b"filter\0")), errno.EPERM),
        (agent.NETFILTER, pack(0x0A02, 0x5, 7, b"\2\0\0\0"), errno.EPERM),
        (agent.NETFILTER, pack(0x0A07, 0x301, 7, nft(agent.TABLE)), errno.EPERM),
        (agent.NETFILTER, pack(0x0010, 0x1, 7, b"\0\0\0\x01"), errno.EPERM),
        # SOCK_DESTROY, and a socket that is asked for alone.
        (agent.SOCK_DIAG, pack(21, 0x301, 7, b"\2\6" + bytes(54)), errno.EPERM),
        (agent.SOCK_DIAG, pack(20, REQUEST, 7, b"\2\6" + bytes(54)), errno.EPERM),
        (agent.ROUTE, b"", errno.EINVAL),
    ],
)
def test_what_it_does_not_relay_it_refuses(host: Host, protocol: int, requests: bytes, code: int) -> None:
    assert failure(host.netlink(protocol, requests))[0] == code
    assert host.netlink(agent.ROUTE, DUMP_LINKS)[1] == agent.DONE


@pytest.mark.parametrize("name", ["", "ip_vs", "tcp", "../../etc/shadow", "snmp\0", "/proc/net/snmp"])
def test_files_are_of_a_closed_list(host: Host, name: str) -> None:
    assert failure(host.ask(agent.FILE, name.encode()))[0] == errno.EPERM


@pytest.mark.parametrize("name", ["", "dummy", "ip_vs; reboot", "-r", "../ip_vs", "ip_vs\0"])
def test_modules_are_of_a_closed_list(host: Host, name: str) -> None:
    assert failure(host.ask(agent.MODPROBE, name.encode()))[0] == errno.EPERM
    assert failure(host.ask(agent.MODULES_GET, f"ip_vs\n{name}".encode()))[0] == errno.EPERM


@pytest.mark.parametrize(
    "name",
    [
        *("", "kernel.core_pattern", "net.ipv4.vs.../../../kernel/panic", "net.ipv4.vs./etc", "net.ipv4.tcp_rmem"),
        *("net.ipv4.conf.eth0.tag", "net.ipv6.conf.eth0.rp_filter", "net.ipv6.conf.eth0.stable_secret"),
        *("net/ipv4/conf/../rp_filter", "net/ipv4/conf//rp_filter", "net/ipv4/conf/a/../rp_filter"),
        *(
            "net/ipv4/conf/./rp_filter",
            "net/ipv4/conf/a\0b/rp_filter",
            "net.ipv4.conf.rp_filter",
            "net/ipv4/vs/conntrack/",
        ),
        *("net.ipv4.conf.eth0.1.rp_filter", "/net/ipv4/conf/lo/rp_filter", "net/ipv4/conf/lo/rp_filter/"),
    ],
)
def test_settings_are_of_a_closed_list(host: Host, name: str) -> None:
    assert failure(host.ask(agent.SYSCTL_GET, name.encode()))[0] == errno.EPERM
    assert failure(host.ask(agent.SYSCTL_SET, f"{name}=1".encode()))[0] == errno.EPERM


def guard_head(probe: int) -> bytes:
    return agent.GUARD_HEAD.pack(1000) + agent.GUARD_SERVICE_HEAD.pack(2, probe, 0)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", errno.EINVAL),
        (b"\0\0\3", errno.EINVAL),
        (agent.GUARD_HEAD.pack(1000), errno.EINVAL),
        (agent.GUARD_HEAD.pack(1000) + b"\2", errno.EINVAL),
        (guard_head(1), errno.EINVAL),
        (guard_head(0), errno.EINVAL),
        (guard_head(4) + b"\0" * 4, errno.EINVAL),
        (guard_head(16) + pack(16, REQUEST, 1, b"")[:-1] + b"\1", errno.EPERM),
    ],
)
def test_what_is_no_guard_it_refuses(host: Host, payload: bytes, code: int) -> None:
    # This host's kernel may have no IPVS: then that is the reason for the last.
    assert failure(host.ask(agent.GUARD, payload))[0] in {code, errno.ENOENT}
    assert host.ask(agent.GUARD, agent.GUARD_HEAD.pack(0)) == (5, agent.DONE, b"")


def test_a_setting_is_set_and_read(host: Host) -> None:
    assert host.ask(agent.SYSCTL_SET, b"net.ipv4.ip_forward=1") == (5, agent.DONE, b"")
    assert host.ask(agent.SYSCTL_GET, b"net.ipv4.ip_forward") == (5, agent.DONE, b"1")


def test_settings_of_a_link_are_set_and_read(host: Host) -> None:
    assert host.ask(agent.SYSCTL_SET, b"net/ipv4/conf/lo/rp_filter=2") == (5, agent.DONE, b"")
    assert host.ask(agent.SYSCTL_SET, b"net.ipv6.conf.default.accept_source_route=-1") == (5, agent.DONE, b"")
    names = b"net.ipv4.conf.lo.rp_filter\nnet/ipv4/conf/no.1/rp_filter\nnet.ipv6.conf.default.accept_source_route"
    assert host.ask(agent.SYSCTL_GET, names) == (5, agent.DONE, b"2\n\n-1")
    assert failure(host.ask(agent.SYSCTL_SET, b"net/ipv4/conf/no.1/rp_filter=1"))[0] == errno.ENOENT
    assert failure(host.ask(agent.SYSCTL_GET, b"net.ipv4.ip_forward\nkernel.panic"))[0] == errno.EPERM


def test_a_kernel_without_ipvs_has_no_listing(host: Host) -> None:
    assert failure(host.ask(agent.LISTING))[0] == errno.ENOENT


@pytest.mark.parametrize("value", ["", "x" * 3, "1" * 65, "1\n", "1;2"])
def test_a_value_is_a_short_number(host: Host, value: str) -> None:
    assert failure(host.ask(agent.SYSCTL_SET, f"net.ipv4.ip_forward={value}".encode()))[0] == errno.EINVAL


def test_what_it_does_not_know_it_says(host: Host) -> None:
    assert failure(host.ask(77)) == (errno.EOPNOTSUPP, "unknown kind of request: 77")


def test_a_frame_that_is_too_long(host: Host) -> None:
    host.channel.sendall(agent.HEADER.pack(agent.MAX_FRAME + 1, 5, agent.NETLINK))
    assert failure(host.receive())[0] == errno.EMSGSIZE
    host.greet()
    assert host.netlink(agent.ROUTE, DUMP_LINKS)[1] == agent.DONE


@pytest.mark.parametrize("host", [0.5], indirect=True)
def test_an_answer_that_does_not_come_is_given_up(host: Host) -> None:
    started = time.monotonic()
    code, words = failure(host.netlink(agent.ROUTE, DUMP_LINKS, last=8))
    assert code == errno.ETIMEDOUT, words
    assert time.monotonic() - started < 30
    # Nothing of it is taken for the next answer.
    assert [each.type for each in messages(host.netlink(agent.ROUTE, DUMP_LINKS)[2])] == [
        message.NEW_LINK,
        message.DONE,
    ]


def test_notifications(host: Host) -> None:
    assert host.subscribe(sections.GROUPS) == (5, agent.DONE, b"")
    up = pack(16, REQUEST | message.ACK, 7, b"\0\0\0\0" + b"\1\0\0\0" + b"\1\0\0\0" + b"\1\0\0\0")
    frames = [host.netlink(agent.ROUTE, up), host.receive()]
    assert [(request, kind) for request, kind, _ in frames] == [(5, agent.DONE), (0, agent.NOTIFY)]
    assert message.NEW_LINK in [each.type for each in messages(frames[1][2])]


@pytest.mark.parametrize(
    ("group", "line", "kind"),
    [
        (0x1, "link set lo mtu 1400", message.NEW_LINK),
        (0x4, "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev lo", 28),
        (0x10, "addr add 192.0.2.1/32 dev lo", message.NEW_ADDRESS),
        (0x40, "route add blackhole 192.0.2.0/24", message.NEW_ROUTE),
        (0x80, "-4 rule add from 192.0.2.0/24 table 7", 32),
        (0x100, "addr add 2001:db8::1/128 dev lo nodad", message.NEW_ADDRESS),
        (0x400, "route add blackhole 2001:db8:1::/64", message.NEW_ROUTE),
        (0x40000, "-6 rule add from 2001:db8::/64 table 7", 32),
        # RTM_NEWNETCONF.
        (0x800000, "sysctl -qw net.ipv4.conf.lo.rp_filter=1", 80),
        (0x1000000, "sysctl -qw net.ipv6.conf.lo.proxy_ndp=1", 80),
    ],
)
def test_the_host_says_what_it_is_notified_of(host: Host, group: int, line: str, kind: int) -> None:
    within = ["nsenter", f"--net=/proc/{host.process.pid}/ns/net", "ip"]
    subprocess.run([*within, "link", "set", "lo", "up"], check=True)
    assert host.subscribe(agent.ALLOWED_GROUPS & ~group) == (5, agent.DONE, b"")
    assert host.subscribe(group) == (5, agent.DONE, b"")
    subprocess.run([*(within[:-1] if line.startswith("sysctl") else within), *line.split()], check=True)
    request, told, payload = host.receive()
    assert (request, told) == (0, agent.NOTIFY)
    assert {each.type for each in messages(payload)} == {kind}


def test_groups_are_of_a_closed_list(host: Host) -> None:
    refused = [bit for bit in (1 << number for number in range(32)) if bit & ~agent.ALLOWED_GROUPS]
    assert len(refused) == 22
    for group in refused:
        answer = failure(host.subscribe(sections.GROUPS | group))
        assert answer == (errno.EPERM, f"netlink groups {group:#x} are not relayed")


@pytest.mark.parametrize("payload", [b"", b"\0\0\1", b"\0\0\0\0\1"])
def test_what_is_no_mask_of_groups_it_refuses(host: Host, payload: bytes) -> None:
    assert failure(host.ask(agent.SUBSCRIBE, payload))[0] == errno.EINVAL


def test_notifications_that_nobody_fetches_are_lost_and_it_says_so(host: Host) -> None:
    host.subscribe(sections.GROUPS)
    namespace = f"/proc/{host.process.pid}/ns/net"
    lines = b"".join(b"route add blackhole 10.%d.%d.0/24\n" % (i // 250, i % 250) for i in range(50_000))
    within = ["nsenter", f"--net={namespace}", "ip", "-batch", "-"]
    for _ in range(3):
        subprocess.run(within, input=lines, check=True, capture_output=True)
        subprocess.run(within, input=lines.replace(b"add", b"del"), check=True, capture_output=True)
    kinds = [host.receive()[1]]
    while agent.LOST not in kinds:
        kinds.append(host.receive()[1])
    assert set(kinds) == {agent.NOTIFY, agent.LOST}


def test_a_host_that_leaves_in_a_frame_and_comes_back_unnoticed(host: Host) -> None:
    host.channel.sendall(agent.HEADER.pack(1000, 5, agent.NETLINK) + b"half")
    host.greet()
    assert host.netlink(agent.ROUTE, DUMP_LINKS)[1] == agent.DONE


@pytest.mark.parametrize("host", [0.2], indirect=True)
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.integers(0, 5),
                st.sampled_from(
                    [
                        agent.NETLINK,
                        agent.MODPROBE,
                        agent.MODULES_GET,
                        agent.SYSCTL_GET,
                        agent.SYSCTL_SET,
                        agent.SUBSCRIBE,
                        agent.LISTING,
                        agent.GUARD,
                        9,
                    ]
                ),
                st.binary(max_size=80),
            ).map(lambda each: frame(*each)),
            # Of connection tracking the agent reads the messages itself.
            st.binary(max_size=60).map(lambda each: netlink_frame(agent.NETFILTER, each)),
            st.binary(max_size=60).map(lambda each: frame(5, agent.GUARD, guard_head(2) + each)),
            st.binary(max_size=60),
        ),
        max_size=5,
    )
)
def test_no_bytes_of_a_host_end_it(host: Host, rubbish: list[bytes]) -> None:
    host.channel.sendall(b"".join(rubbish))
    host.greet()
    assert host.process.poll() is None


def test_it_waits_without_work_while_the_host_is_away(host: Host) -> None:
    host.channel.shutdown(socket.SHUT_RDWR)
    time.sleep(0.5)
    before = _ticks(host.process.pid)
    time.sleep(1)
    assert host.process.poll() is None
    assert _ticks(host.process.pid) - before <= 0.1 * os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))


def test_a_host_that_stops_does_not_stop_it_for_ever(host: Host) -> None:
    # It is answered until nothing more fits, and heard again afterwards.
    host.channel.setblocking(False)
    try:
        while True:
            host.channel.send(netlink_frame(agent.ROUTE, DUMP_LINKS) * 50)
    except BlockingIOError:
        pass
    host.channel.settimeout(15)
    time.sleep(0.3)
    host.process.send_signal(signal.SIGSTOP)
    host.process.send_signal(signal.SIGCONT)
    host.decoder = Decoder(host.mark, 0)
    drained = 0
    host.channel.settimeout(1)
    try:
        while True:
            drained += len(host.channel.recv(1 << 20))
    except TimeoutError:
        pass
    host.channel.settimeout(60)
    # The last request went out in part: what is missing of it is the start of nothing.
    host.greet()
    assert drained
    assert host.netlink(agent.ROUTE, DUMP_LINKS)[1] == agent.DONE


def test_an_answer_is_known_by_its_place_and_its_sequence_number() -> None:
    assert agent.is_end(pack(message.NEW_LINK, 2, 7, b"\0" * 16) + pack(message.DONE, 2, 7, b"\0" * 4), 7)
    assert not agent.is_end(pack(message.NEW_LINK, 2, 7, attribute(1, pack(message.DONE, 2, 7, b"\0" * 4))), 7)
    assert not agent.is_end(pack(message.DONE, 2, 6, b"\0" * 4), 7)


@pytest.mark.parametrize(
    "words", [["--vsock"], ["--vsock", "0"], ["--hvsock", "4294967295"], ["--vsock", "7x"], ["a", "b"]]
)
def test_a_command_line_that_names_no_port(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        agent.open_any(words)
    usage = "usage: agent.py [NAME] | --vsock PORT | --hvsock PORT (a number from 1 to 4294967294)"
    assert ended.value.code == usage
