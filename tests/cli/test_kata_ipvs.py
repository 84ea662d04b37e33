"""`kata-ipvs` over a table in memory: how it is called, what it prints, and how it ends."""

from __future__ import annotations

import io
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from reconciler import imperative
from reconciler.cli.main import main
from reconciler.model.ipvs import Timeouts
from reconciler.operations.ipvs import AddServer, AddService, DeleteConntrack, DeleteService, EditService, SetTimeouts
from reconciler.values import replace
from tests.manifest.texts import manifest
from tests.test_converge import TLS, WEB
from tests.test_imperative import Again

LISTED = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.10.0.1:80 rr
  -> 172.16.0.1:8080              Masq    9      3          0
  -> 172.16.0.2:8080              Masq    9      0          0
TCP  10.10.0.1:443 wlc
  -> 172.16.0.3:8080              Masq    9      0          0
"""
SAVED = """\
-A -t 10.10.0.1:80 -s rr
-a -t 10.10.0.1:80 -r 172.16.0.1:8080 -m -w 9
-a -t 10.10.0.1:80 -r 172.16.0.2:8080 -m -w 9
-A -t 10.10.0.1:443 -s wlc
-a -t 10.10.0.1:443 -r 172.16.0.3:8080 -m -w 9
"""


class Listed(Again):
    def ipvs_listing(self) -> str:
        assert self.locked
        return self.kernel.ipvs_listing()


@pytest.fixture(autouse=True)
def box(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Listed:
    """A service of ours, one of somebody else, and a manifest by which they are found."""
    made = Listed()
    made.kernel.add(WEB, connections=[3])
    made.kernel.add(TLS, marked=False)

    def connect(*_: object) -> AbstractContextManager[Listed]:
        return nullcontext(made)

    monkeypatch.setattr(imperative, "connect", connect)
    monkeypatch.chdir(tmp_path)
    Path("box.yaml").write_text(manifest("sandbox: 6ec7a98", "driver: {netns: {name: n}}"))
    return made


def run(*words: str) -> int:
    return main(["kata-ipvs", *words, "6ec7", "--manifests", "box.yaml"])


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Give what was printed, without the blanks that ipvsadm ends lines with."""
    out, err = capsys.readouterr()
    assert err == ""
    return [line.rstrip() for line in out.splitlines()]


@pytest.mark.parametrize("parameters", ["--list", "-Ln"])
def test_the_table_is_listed_with_connections(parameters: str, capsys: pytest.CaptureFixture[str], box: Listed) -> None:
    assert run("ipvsadm", "--parameters", parameters) == 0
    assert lines(capsys) == LISTED.splitlines()
    assert box.executed == []


def test_one_service_is_listed_without_the_heading_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ipvsadm", "--parameters=--list --tcp-service 10.10.0.1:443") == 0
    expected = LISTED.splitlines()
    assert lines(capsys) == [*expected[1:3], *expected[6:]]


def test_the_table_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ipvsadm", "--parameters", "-Sn") == 0
    assert capsys.readouterr() == (SAVED, "")


NEW = replace(WEB, port=81, servers=())


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("-A -t 10.10.0.1:81 -s rr", [AddService(service=NEW)]),
        ("-D -t 10.10.0.1:443", [DeleteService(service=replace(TLS, marked=False))]),
        (
            "-E -t 10.10.0.1:443 -s rr",
            [EditService(service=replace(TLS, scheduler="rr"), before=replace(TLS, marked=False))],
        ),
        ("--set 100 0 200", [SetTimeouts(timeouts=Timeouts(100, None, 200), before=Timeouts(900, 120, 300))]),
    ],
)
def test_a_command_does_one_thing(
    parameters: str, expected: list[object], box: Listed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ipvsadm", "--parameters", parameters) == 0
    assert box.executed == expected
    assert capsys.readouterr() == ("", "")


def test_clear_takes_all(box: Listed) -> None:
    assert run("ipvsadm", "--parameters", "--clear") == 0
    assert not box.kernel.services


def test_rules_come_from_a_file_or_standard_input(box: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = "-A -t 10.10.0.1:81 -s rr\n-a -t 10.10.0.1:81 -r 172.16.0.1:8080 -m -w 9\n"
    Path("rules").write_text(rules)
    assert run("ipvsadm", "--restore", "rules") == 0
    server = WEB.servers[0]
    expected = [AddService(service=replace(NEW, servers=(server,))), AddServer(service=NEW.key, server=server)]
    assert box.executed == expected
    assert run("ipvsadm", "--parameters", "-D -t 10.10.0.1:81") == 0
    box.executed.clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rules.encode())))
    assert run("ipvsadm", "--restore", "-") == 0
    assert box.executed == expected


def test_each_wrong_line_is_told_and_none_is_imported(box: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rules").write_text("-A -t 10.10.0.1:81 -s rr\n-A -t 10.10.0.2\nhello\n" + "x\n" * 20)
    assert run("ipvsadm", "--restore", "rules") == 2
    out, err = capsys.readouterr()
    told = err.splitlines()
    assert (out, told[0]) == ("", "reconciler: 22 lines of the rules are wrong, none is imported:")
    assert told[1].startswith("rules:2: no port")
    assert told[2] == "rules:3: only -A and -a lines belong in a rules file"
    assert told[-1] == "… and 2 more"
    assert box.executed == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ipvsadm", "--parameters", "-Z"), "--parameters: -Z is not supported: reconciler does not manage counters"),
        (("ipvsadm", "--parameters", ""), "--parameters: nothing to do; expected one of"),
        (("ipvsadm", "--restore", "none"), "none: No such file or directory"),
        (("ipvsadm", "--restore", "/dev/null"), "/dev/null: is a device, not a regular file"),
        (("cleanup", "--parameters", "-p tcp"), "--parameters: --orig-dst is missing"),
        (("ipvsadm", "--parameters", "-L -t 10.0.0.9:80"), "-L -t 10.0.0.9:80: no such service"),
    ],
)
def test_what_is_wrong_is_said(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"reconciler: {message}")


@pytest.mark.parametrize(
    "words",
    [
        ("ipvsadm",),
        ("ipvsadm", "--parameters", "-L", "--restore", "-"),
        ("cleanup",),
        ("cleanup", "--restore", "-"),
        (),
    ],
)
def test_a_command_line_that_is_wrong(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2


def test_cleanup_forgets_connections(box: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[tuple[str, str]] = []

    def delete(_: object, address: str, protocol: str, **__: object) -> int:
        forgotten.append((address, protocol))
        return 1

    monkeypatch.setattr("reconciler.netlink.conntrack.delete", delete)
    assert run("cleanup", "--parameters", "-d 172.17.0.4 -p udp") == 0
    assert forgotten == [("172.17.0.4", "udp")]
    assert box.executed == [DeleteConntrack(address="172.17.0.4", protocol="udp")]


def test_a_watch_that_will_undo_it_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"sandbox": "6ec7a98", "file": "box.yaml", "state": "converged"}
    monkeypatch.setattr("reconciler.watch.client.read_status", lambda: {"sandboxes": [entry]})
    assert run("ipvsadm", "--parameters", "-Ln") == 0
    assert capsys.readouterr().err == ""
    assert run("ipvsadm", "--parameters", "-A -f 7") == 0
    message = "6ec7a98: `reconciler watch` will revert whatever differs from box.yaml\n"
    assert capsys.readouterr() == ("", message)
