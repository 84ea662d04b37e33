"""Drop-ins of networkd are read beside their file, and nothing else is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.cli.main import main

NETWORK = "[Match]\nName=eth0\nMACAddress=02:42:20:6f:a3:69\n[Network]\nAddress=192.0.2.1/24\n[Link]\nMTUBytes=1500\n"
NO_DROP_IN = "does not begin as a drop-in of networkd does: with the header of a section"


@pytest.fixture
def dropin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("x.network").write_text(NETWORK)
    Path("x.network.d").mkdir()
    return Path("x.network.d/a.conf")


def run(capsys: pytest.CaptureFixture[str], *files: str) -> tuple[int, str, str]:
    code = main(["import", "--sandbox", "a", "--netns", "a", *files])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("text", ["", "# a comment\n", "; another one\n\n", "\ufeff# and a byte order mark\n"])
def test_a_drop_in_without_settings(dropin: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = run(capsys, "x.network")
    assert expected[0] == 0
    dropin.write_text(text)
    assert run(capsys, "x.network") == expected


def test_a_masked_drop_in(dropin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = run(capsys, "x.network")
    dropin.symlink_to("/dev/null")
    assert run(capsys, "x.network") == expected


def test_other_names_are_no_drop_ins(dropin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = run(capsys, "x.network")
    dropin.with_name("a.conf~").write_text("[Network]\nAddress=192.0.2.2/24\n")
    dropin.with_name("b").write_text("[Network]\nAddress=192.0.2.2/24\n")
    assert run(capsys, "x.network") == expected


def test_what_is_no_drop_in(dropin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dropin.write_text("root:x:0:0\n")
    assert run(capsys, "x.network") == (2, "", f"x.network: {dropin}: {NO_DROP_IN}\n1 problem in 1 file.\n")
    dropin.unlink()
    dropin.symlink_to("/etc/passwd")
    words = "leads out of ., and only what is beneath it is read"
    assert run(capsys, "x.network") == (2, "", f"x.network: {dropin}: {words}\n1 problem in 1 file.\n")
    dropin.unlink()
    os.mkfifo(dropin)
    words = "is a FIFO, not a regular file"
    assert run(capsys, "x.network") == (2, "", f"x.network: {dropin}: {words}\n1 problem in 1 file.\n")


def test_a_drop_in_by_its_own_name(dropin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dropin.write_text("[Network]\nAddress=192.0.2.2/24\n")
    words = "is a drop-in; name x.network, with which its drop-ins are read"
    assert run(capsys, str(dropin)) == (2, "", f"{dropin}: {words}\n1 problem in 1 file.\n")


def test_wrong_values_of_a_drop_in_have_its_lines(dropin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dropin.write_text("# a comment\n[Network]\nAddress=192.0.2.300/24\nDNS=192.0.2.53\n")
    code, out, err = run(capsys, "x.network")
    assert (code, out) == (2, "")
    assert f"{dropin}:4: Network.DNS: not imported: a manifest does not describe DNS\n" in err
    assert f'{dropin}:3:1: Network.Address[1]: "192.0.2.300" is not an IP address\n' in err
