"""The host's end of vsock and hybrid vsock: real sockets, and answers that no monitor should give."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError
from reconciler.guest import connection, vsock
from reconciler.guest.client import AgentClient
from reconciler.guest.lend import Lender
from reconciler.model.transport import Vsock
from reconciler.watch.wake import Wake
from tests.guest import hybrid
from tests.guest.peer import Script, peer, wait_for_end
from tests.guest.test_replug import links
from tests.machine import Guest


def dial(path: str) -> hybrid.Dial:
    def connect(port: int) -> socket.socket:
        if port != 200:
            raise ConnectionRefusedError
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(path)
        return channel

    return connect


def test_the_agent_of_a_machine_behind_hybrid_vsock(guest: Guest, tmp_path: Path) -> None:
    path = str(tmp_path / "vsock.sock")
    with hybrid.serving(path, dial(guest.sandbox.agent)):
        with AgentClient(f"hvsock://{path}:200") as client:
            assert "lo" in links(client)
            # A port has one client at a time, another port of the same socket another one.
            with pytest.raises(BusyError, match=f"another process is connected to hvsock://{path}:200"):
                AgentClient(f"hvsock://{path}:200")
            with pytest.raises(ChannelError, match=f"nothing listens at hvsock://{path}:201; start the agent in the"):
                AgentClient(f"hvsock://{path}:201")
        with AgentClient(f"hvsock://{path}:200") as client:
            assert "lo" in links(client)


def answers(data: bytes, *, drip: float = 0.0) -> Script:
    def script(channel: socket.socket) -> None:
        channel.recv(64)
        for byte in data:
            channel.sendall(bytes([byte]))
            time.sleep(drip)
        if drip or not data:
            wait_for_end(channel)

    return script


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        (answers(b"OK\n"), ProtocolError, r"does not answer CONNECT as hybrid vsock does, but with b'OK\\n'"),
        (answers(b"NO 7\n"), ProtocolError, "does not answer CONNECT as hybrid vsock does"),
        (answers(b"OK 7"), ChannelError, "nothing listens at"),
        (answers(b"OK " + b"7" * 100), ProtocolError, "does not answer CONNECT as hybrid vsock does"),
        (answers(b""), ChannelError, "did not answer CONNECT within 0 s"),
        (answers(b"OK " + b"7" * 20 + b"\n", drip=0.05), ChannelError, "did not answer CONNECT within 0 s"),
    ],
)
def test_an_answer_that_is_none_ends_in_time(
    script: Script, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", 0.3)
    with peer(script) as path, pytest.raises(error, match=words):
        connection.Connection(f"hvsock://{path}:200")


def test_what_comes_right_after_the_answer_is_the_agents() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"OK 1073741824\n\0\1\2")
        vsock.choose_port(ours, "hvsock:///run/x:200", 200, 5)
        assert (theirs.recv(64), ours.recv(64)) == (b"CONNECT 200\n", b"\0\1\2")


def test_a_host_without_vsock_names_the_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Whatever this host has.
    monkeypatch.setattr(vsock, "_VHOST", str(tmp_path / "none"))
    with pytest.raises(
        HostError, match="this host's kernel lacks the module vhost_vsock; load it: modprobe vhost_vsock"
    ):
        vsock.connect(Vsock(4294967000, 200), 5)


def test_an_agent_by_vsock_has_a_lock_and_is_lent_by_its_numbers(root: None) -> None:
    wake = Wake()
    assert connection.identity("vsock://3:200") == "vsock-3-200"
    with Lender("vsock://3:200", wake.fileno()) as lender:
        assert lender.asker() is None
    wake.close()


MANIFEST = """
apiVersion: reconciler/v1
sandbox: pod
driver: {vm: {agent: "hvsock://PATH:200"}}
routes: [{dest: 198.51.100.0/24, device: lo}]
"""
NIC = {"device": "tap-pod", "name": "eth9", "IPAddresses": [], "mtu": 1500, "hwAddr": "02:00:00:00:00:09"}


def test_without_a_monitor_no_nic_is_plugged(guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file, nic = str(tmp_path / "vsock.sock"), tmp_path / "pod.yaml", tmp_path / "nic.json"
    file.write_text(MANIFEST.replace("PATH", path))
    nic.write_text(json.dumps(NIC))
    with hybrid.serving(path, dial(guest.sandbox.agent)):
        assert main(["apply", str(file)]) == 0
        assert "198.51.100.0/24" in guest.output("ip", "route", "show", "proto", "200")
        assert main(["kata-network", "add-iface", "pod", str(nic), "--manifests", str(file)]) == 2
        err = capsys.readouterr().err
        assert "eth9: the machine has no monitor, so no NIC can be plugged into it" in err
        file.write_text(MANIFEST.replace("PATH", path).partition("routes")[0] + "routes: []\ninterfaces: []\n")
        assert main(["apply", str(file), "--allow-delete", "all"]) == 0
        assert guest.output("ip", "route", "show", "proto", "200") == ""
