"""Names and aliases in a namespace may be anything: they are shown as lines, pasted as words, and never obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Kernel
from tests.hostile import check, read, run
from tests.system.box import Box, nic
from tests.watch.running import COMMAND, until

# What the kernel takes for a name: at most 15 bytes, no white space, no slash, no colon.
NAMES = [
    b"\x1b[31m\x9b2J\x07\x7f",
    b"$(>pwned)",
    b"';>pwned;'",
    b"`>pwned`&|*?",
    "\u202e\u2066\u200bx".encode(),
    b"\xff\xfe\x85",
]
LINKS = "import json, socket; print(json.dumps([name for _, name in socket.if_nameindex()]))"
ALIAS = b"\x1b]0;t\x07\nweb-1: in sync\r\xff\x9b2J\xe2\x80\xae"


@pytest.fixture
def renamed(box: Box, kernel: Kernel, request: pytest.FixtureRequest) -> bytes:
    """Give the sandbox a device, which a tenant then renames; it makes others, with routes and rules."""
    box.apply(interfaces=[nic(kernel.tap())], routes=[{"dest": "10.8.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}])
    name: bytes = request.param
    within = ["ip", "-n", box.namespace]
    for words in (
        ["link", "set", "eth0", "down"],
        ["link", "set", "eth0", "name", name, "alias", ALIAS],
        ["link", "set", name, "up"],
        ["link", "add", name[::-1], "type", "veth", "peer", "name", "p0"],
        ["link", "set", "p0", "up"],
        ["link", "set", name[::-1], "alias", ALIAS, "up"],
        ["address", "add", "10.77.0.1/24", "dev", name[::-1]],
        ["route", "add", "10.78.0.0/24", "dev", name[::-1], "proto", "200"],
        ["rule", "add", "iif", name[::-1], "priority", "77", "lookup", "77", "protocol", "200"],
    ):
        subprocess.run([*within, *words], check=True)
    return name


def links(box: Box) -> set[str]:
    words = ["nsenter", f"--net=/run/netns/{box.namespace}", sys.executable, "-c", LINKS]
    return {*json.loads(subprocess.run(words, check=True, capture_output=True).stdout)}


@pytest.mark.parametrize("renamed", NAMES, ids=repr, indirect=True)
def test_a_link_with_a_name_of_a_tenant(
    renamed: bytes, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(box.file)
    for form in ("json", "yaml"):
        for command in ("diff", "show"):
            code, out, _ = run(command, "-o", form, file)
            assert code in {0, 1}
            assert read(form, out)
    for words in (["show", "-o", "text", file], ["diff", "-v", file], ["validate", file]):
        assert run(*words)[0] in {0, 1}
    for words in (["list-ifaces"], ["list-routes"]):
        assert run("kata-network", *words, "--manifests", file, "box")[0] == 0
    _, script, _ = run("diff", "-o", "shell", file)
    subprocess.run(["sh", "-e"], input=script, text=True, check=True)
    assert not list(tmp_path.glob("*pwned*"))
    # The script has named the link as the kernel does.
    assert links(box) == {"lo", "eth0", "p0", os.fsdecode(renamed[::-1])}


@pytest.mark.parametrize("renamed", NAMES, ids=repr, indirect=True)
def test_an_apply_gives_it_its_name_back(renamed: bytes, box: Box) -> None:
    code, out, err = run("apply", "-v", str(box.file))
    assert (code, "verified" in out) == (0, True), err
    assert run("diff", str(box.file))[0] == 0
    assert links(box) == {"lo", "eth0", "p0", os.fsdecode(renamed[::-1])}


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_of_a_watch(form: str, box: Box, kernel: Kernel, tmp_path: Path) -> None:
    name = NAMES[0]
    box.apply(interfaces=[nic(kernel.tap())])
    log = tmp_path / "log"
    with log.open("wb") as stream:
        watcher = subprocess.Popen([*COMMAND, "watch", "--log", form, str(box.file)], stderr=stream)
    try:
        until(lambda: b"converged" in log.read_bytes(), "a first look", more=log.read_text)
        subprocess.run(["ip", "-n", box.namespace, "link", "set", "eth0", "down"], check=True)
        subprocess.run(["ip", "-n", box.namespace, "link", "set", "eth0", "name", name, "alias", ALIAS], check=True)
        until(lambda: b"repaired" in log.read_bytes(), "a repair", more=log.read_text)
    finally:
        watcher.terminate()
        watcher.wait(60)
    text = check(log.read_bytes())
    if form == "json":
        assert all(json.loads(line)["event"] for line in text.splitlines())


@pytest.mark.parametrize("alias", [ALIAS, b"\xff", "\u202eünï".encode()], ids=repr)
def test_a_device_returns_with_the_alias_that_it_had(alias: bytes, box: Box, kernel: Kernel) -> None:
    device = kernel.tap()
    subprocess.run(["ip", "link", "set", device, "alias", alias], check=True)
    file = Path("/sys/class/net", device, "ifalias")
    before = file.read_bytes()
    box.apply(interfaces=[nic(device)])
    assert not file.exists()
    box.apply(interfaces=[])
    assert file.read_bytes() == before
