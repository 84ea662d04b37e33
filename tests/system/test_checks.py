"""Checks of a manifest are made before and after a change; what began to fail undoes it, in each kind of sandbox."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import Any

import pytest

from reconciler.checks import make
from reconciler.cli.main import main
from reconciler.drivers import connect
from reconciler.errors import ProtocolError
from reconciler.guest import agent
from reconciler.guest.client import AgentClient
from reconciler.manifest.load import load
from reconciler.manifest.sandbox import write
from reconciler.model.check import Check
from tests.allowed import POLICY, write_policy
from tests.conftest import Kernel, ip
from tests.machine import Guest
from tests.system.box import Box, SandboxPlace, nic

OWN = {"ping": "10.0.0.2", "timeout": 3}
DEFAULT = {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"}


@contextmanager
def beside(box: Box, kernel: Kernel) -> Iterator[str]:
    """Yield the device for a namespace; its peer is in another one, which is its router and has what it can reach."""
    near, far = kernel.veth()
    other = kernel.namespace()
    ip("link", "set", "dev", far, "netns", other, "name", "peer")
    for words in (("link", "set", "lo", "up"), ("address", "add", "192.0.2.9/32", "dev", "lo")):
        ip(*words, namespace=other)
    ip("address", "add", "10.0.0.1/16", "dev", "peer", namespace=other)
    ip("link", "set", "dev", "peer", "up", namespace=other)
    yield near


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Yield the port of a server on loopback that answers each connection with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with closing(connection):
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def check(**fields: Any) -> Check:
    return Check(**{"address": "127.0.0.1", "timeout": 1, **fields})


def verdicts(box: Box, *checks: Check) -> list[str]:
    (manifest,) = load([box.write()])
    with connect(manifest.sandbox, POLICY) as driver:
        return [each.reason for each in make(driver, checks)]


def test_what_began_to_fail_undoes_the_change(
    place: SandboxPlace, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    """Behind kata-runtime nothing can be run, and the manifest is refused with the reason."""
    device = place.device(carrier=True)
    other = nic(device, addresses=["10.0.0.3/16"])
    if "kata" not in place.driver:
        # Without it, nothing reaches its own addresses.
        place.ip("link", "set", "dev", "lo", "up")
    if "kata" in place.driver:
        assert main(["validate", place.write(interfaces=[other], checks=[OWN])]) == 2
        assert (
            "nothing can be run in a sandbox behind kata-runtime; a check of it needs from: host"
            in capsys.readouterr().err
        )
        return
    place.apply(interfaces=[nic(device)], checks=[OWN])
    assert "it fails before the change, so it decides nothing" in capsys.readouterr().err
    before = place.state()
    assert main(["apply", place.write(interfaces=[other], checks=[OWN])]) == 2
    printed = capsys.readouterr()
    assert "1 check failed after the change: ping 10.0.0.2\n  no answer (tried for 3 s)\n" in printed.err
    assert "all undone. box is as it was before." in printed.err
    assert place.state() == before
    # One that failed before and is required to pass, and one that does not decide.
    never = {"tcp": "10.0.0.2:9", "timeout": 1}
    assert main(["apply", place.write(interfaces=[other], checks=[{**never, "required": True}])]) == 2
    assert place.state() == before
    assert (
        main(["apply", place.write(interfaces=[other], checks=[never, {"route": "10.0.7.7", "device": "eth0"}])]) == 0
    )
    assert "tcp 10.0.0.2:9: no answer (tried for 1 s): it failed before the change" in capsys.readouterr().err
    assert place.state() != before


def test_a_lost_default_route_is_back_within_the_timeout(
    box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str], repeats: Callable[[int], int]
) -> None:
    """A ping of 100 Hz loses what the check takes and at most a second, where nothing else is at work (`make soak`)."""
    with beside(box, kernel) as device:
        box.apply(interfaces=[nic(device)], routes=[DEFAULT])
        words = ["ip", "netns", "exec", box.namespace, "ping", "-i", "0.01", "-D", "192.0.2.9"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as ping:
            assert ping.stdout
            seen = [ping.stdout.readline() for _ in range(4)]
            file = box.write(interfaces=[nic(device)], routes=[], checks=[{"ping": "192.0.2.9", "timeout": 1}])
            assert main(["apply", "--allow-delete", "all", file]) == 2
            seen += [ping.stdout.readline() for _ in range(20)]
            ping.kill()
        times = [float(line[1:].split("]")[0]) for line in seen if "bytes from" in line]
        lost = max(later - one for one, later in pairwise(times))
        assert lost > 0.9
        assert repeats(4) < 4 or lost < 2
        assert "ping 192.0.2.9\n  Network is unreachable (tried for 1 s)\n" in capsys.readouterr().err


def test_each_kind_passes_and_fails_with_its_reason(box: Box, kernel: Kernel) -> None:
    with beside(box, kernel) as device, server(b"HTTP/1.1 204 No Content\r\n\r\n") as good, server(b"what?\n") as bad:
        box.apply(interfaces=[nic(device, addresses=["10.0.0.2/16", "fd00::2/64"])], routes=[DEFAULT])
        box.ip("link", "set", "dev", "lo", "up")
        far, gone = check(kind="ping", address="192.0.2.9", count=3, timeout=30), check(kind="ping", address="10.0.9.9")
        assert verdicts(box, far, gone) == ["", "no answer (tried for 1 s)"]
        six = check(kind="ping", address="fd00::2", timeout=30)
        routed = [check(kind="route", address="192.0.2.9", device=name) for name in ("", "eth0", "eth1")]
        lost = check(kind="route", address="2001:db8::1")
        assert verdicts(box, six, *routed) == ["", "", "", "it leads to eth0, not to eth1 (tried for 1 s)"]
        assert "Network is unreachable" in verdicts(box, lost)[0]
        # Those from the host reach what the host reaches, and nothing else is in the sandbox.
        http = [
            check(
                kind="http",
                port=good,
                path="/",
                expect=expect,
                from_host=host,
                timeout=timeout,
            )
            for expect, host, timeout in ((204, True, 30), (200, True, 1), (204, False, 1))
        ]
        tcp = [check(kind="tcp", port=good, from_host=host) for host in (True, False)]
        assert verdicts(box, *http, check(kind="http", port=bad, path="/", from_host=True), *tcp) == [
            "",
            "status 204, not 200 (tried for 1 s)",
            "Connection refused (tried for 1 s)",
            "the answer has no status of HTTP (tried for 1 s)",
            "",
            "Connection refused (tried for 1 s)",
        ]


def test_checks_are_made_beside_each_other(box: Box) -> None:
    begin = time.monotonic()
    assert len(verdicts(box, *[check(kind="tcp", port=9)] * 32)) == 32
    assert time.monotonic() - begin < 20


def test_what_the_host_may_reach_is_up_to_the_operator(
    box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    """Whoever writes a manifest cannot have root connect to what the policy does not name."""
    checks = [{"tcp": "127.0.0.1:9", "from": "host", "timeout": 1}, {"route": "127.0.0.1", "from": "host"}]
    file = box.write(interfaces=[nic(kernel.tap())], checks=checks)
    assert main(["apply", file]) == 3
    assert "no check may reach 127.0.0.1 from this host; to allow it, add to" in capsys.readouterr().err
    policy = write_policy(tmp_path / "p.yaml", hostChecks=["127.0.0.0/8"])
    assert main(["apply", "--policy", policy, file]) == 0
    assert main(["validate", "--policy", write_policy(tmp_path / "q.yaml", hostChecks=["1.2.3/8"]), file]) == 2
    assert "hostChecks[0]" in capsys.readouterr().err


def test_the_agent_does_no_more_than_connect_and_echo(guest: Guest) -> None:
    """Whatever else is asked of it is refused, and it answers the next request."""
    with AgentClient(guest.sandbox.agent) as client:
        good = agent.Probe("ping", "127.0.0.1", 0, 3, 0, "")
        refused = agent.Probe("tcp", "127.0.0.1", 9, 1, 0, "")
        assert client.attempt([good, refused], 1.0) == ["3 ", "0 Connection refused"]
        for wrong in (
            agent.Probe("exec", "127.0.0.1", 1, 1, 200, "/bin/sh"),
            agent.Probe("tcp", "localhost", 1, 1, 200, ""),
            agent.Probe("ping", "127.0.0.1\0", 0, 1, 0, ""),
            agent.Probe("tcp", "127.0.0.1", 70000, 1, 200, ""),
            agent.Probe("tcp", "127.0.0.1", 7, 21, 0, ""),
            agent.Probe("tcp", "127.0.0.1", 7, 0, 0, ""),
            agent.Probe("tcp", "127.0.0.1", 1, 1, 200, "/x"),
            agent.Probe("http", "127.0.0.1", 1, 1, 200, "/\r\nX: 1"),
            agent.Probe("http", "127.0.0.1", 1, 1, 200, "/" * 501),
        ):
            with pytest.raises(ProtocolError):
                client.attempt([wrong], 1.0)
        with pytest.raises(ProtocolError, match="at most 32 probes in 2000 ms"):
            client.attempt([good] * 33, 1.0)
        with pytest.raises(ProtocolError, match="at most 32 probes in 2000 ms"):
            client.attempt([good], 3.0)
        assert client.attempt([good], 1.0) == ["3 "]


def test_a_manifest_with_checks_is_written_as_it_is_read(box: Box) -> None:
    checks = [
        {"ping": "2001:db8::1", "count": 3, "required": True, "onRepair": True},
        {"tcp": "[2001:db8::1]:443", "timeout": 5},
        {"http": "http://192.0.2.1:8080/health?a=b", "expect": 204, "from": "host"},
        {"http": "http://[2001:db8::1]/"},
        {"route": "192.0.2.1", "device": "eth0"},
        {"connects": {"service": "172.17.0.7:80"}},
    ]
    (manifest,) = load([box.write(checks=checks)])
    assert write(manifest.sandbox)["checks"] == checks
