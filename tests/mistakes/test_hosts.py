"""What a host lacks for a manifest, or has in its way: each has one message that tells what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.cli.main import main
from tests.allowed import write_policy
from tests.conftest import Kernel, ip
from tests.mistakes.manifest import GRADES

# Not a pid of a process: the kernel's limit is lower.
NO_PID = 1 << 22
UNKNOWN = "no-such-sandbox"
MAC = "02:42:20:6f:a3:69"


class Row(NamedTuple):
    """A driver, or else the box's; one interface with a device, or none. `{…}` stand for what `Host` names."""

    name: str
    grade: str
    message: str
    driver: str = ""
    device: str = ""
    interface: str = "eth0"
    code: int = 2
    below: str = "routes: []"


ROWS = [
    Row(
        "namespace is missing",
        "excellent",
        "4:3: driver: netns {unknown} does not exist (/run/netns/{unknown}); `ip netns add {unknown}` makes it",
        driver="netns: {name: no-such-sandbox}",
    ),
    Row(
        "file that is no namespace",
        "good",
        "4:3: driver: {file} is not a network namespace; `ip netns` lists those that are",
        driver="netns: {path: {file}}",
    ),
    Row(
        "process is gone",
        "good",
        "4:3: driver: there is no process with the pid {pid}, whose namespace is the sandbox",
        driver="netns: {pid: {pid}}",
    ),
    Row(
        "namespace of the host",
        "good",
        "refused: 4:3: driver: netns of pid 1 is the namespace of the host itself, which no policy allows",
        driver="netns: {pid: 1}",
        code=3,
    ),
    Row(
        "machine does not run",
        "excellent",
        "4:3: driver: no QEMU serves /run/reconciler/sandboxes/{unknown}/agent.sock: the sandbox is not running; "
        "`reconciler sandbox start {unknown}` starts it",
        driver="vm: {name: no-such-sandbox}",
    ),
    Row(
        "socket of QEMU is missing",
        "good",
        "4:3: driver: no QEMU serves {socket}.none: the sandbox is not running",
        driver="vm: {qmp: {socket}, agent: {socket}.none}",
    ),
    Row(
        "file that is no socket",
        "good",
        "4:3: driver: cannot connect to {file}: it is not a socket",
        driver="vm: {qmp: {socket}, agent: {file}}",
    ),
    Row(
        "socket where the policy allows none",
        "excellent",
        "refused: 4:13: driver.vm.qmp: no socket in /opt may be used; to allow it, add to {policy}: "
        "sockets: [/run, /opt]",
        driver="vm: {qmp: /opt/q.sock, agent: /run/a.sock}",
        code=3,
    ),
    Row(
        "no kata-runtime",
        "excellent",
        "4:9: driver.kata.runtime: /usr/bin/kata-runtime: no such program; install kata-runtime, or correct "
        "driver.kata.runtime",
        driver="kata: {id: web}",
    ),
    Row(
        "device is missing",
        "good",
        "6:11: interfaces[0].device: none0: no such device on this host, which interface eth0 needs; create it first",
        device="none0",
    ),
    Row(
        "device without a MAC address",
        "excellent",
        "8:11: interfaces[0].hwAddr: {tun} has no MAC address (it is of kind tun); remove hwAddr from interface eth0",
        device="{tun}",
    ),
    Row(
        "device of another sandbox",
        "excellent",
        "6:11: interfaces[0].device: {given} is in another sandbox, netns {other} (eth0 there); remove it "
        "from the manifest of that sandbox first",
        device="{given}",
    ),
    Row(
        "name that is taken",
        "good",
        "refused: 7:9: interfaces[0].name: the name foreign0 is taken in the sandbox by an interface that is not ours; "
        "rename or remove it there, or choose another name",
        device="{tap}",
        interface="foreign0",
        code=3,
    ),
]


class Host:
    """Two namespaces, one with an interface that is not ours and one with a device of the host, and other files."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.namespace, other = kernel.namespace(), kernel.namespace()
        given, tap, tun = kernel.tap(), kernel.tap(), kernel.tap("mode", "tun")
        allowed = {"drivers": ["netns", "vm", "kata"], "physicalDevices": {"*": [tun]}}
        self.folder, self.policy = folder, write_policy(folder / "policy.yaml", **allowed)
        ip("link", "add", "foreign0", "type", "veth", "peer", "name", "foreign1", namespace=self.namespace)
        self.file, self.socket = Path(f"/run/netns/{kernel.prefix}file"), Path(f"/run/{kernel.prefix}.sock")
        self.file.touch()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.socket))
        self.names = {
            "unknown": UNKNOWN,
            "pid": str(NO_PID),
            "file": str(self.file),
            "socket": str(self.socket),
            "policy": self.policy,
            "tun": tun,
            "tap": tap,
            "given": given,
            "other": other,
        }
        assert self.apply(Row("", "", "", driver=f"netns: {{name: {other}}}", device=given)) == 0

    def apply(self, row: Row) -> int:
        """Apply the manifest of a row. Return the exit code."""
        lines = ["apiVersion: reconciler/v1", "sandbox: web", "driver:", "  " + (row.driver or "netns: {{namespace}}")]
        if row.device:
            lines += [
                "interfaces:",
                f"- device: {row.device}",
                f"  name: {row.interface}",
                f"  hwAddr: {MAC}",
                "  mtu: 1500",
            ]
        else:
            lines.append(row.below)
        text = self.fill("\n".join(lines)).replace("{{namespace}}", f"{{name: {self.namespace}}}")
        (self.folder / "web.yaml").write_text(f"{text}\n")
        return main(["apply", "--policy", self.policy, str(self.folder / "web.yaml")])

    def fill(self, text: str) -> str:
        """Return a text with the names of this host."""
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def close(self) -> None:
        """Delete what is in /run."""
        self._server.close()
        self.file.unlink()
        self.socket.unlink()


@pytest.fixture(scope="module")
def host(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    kernel = Kernel()
    made = Host(kernel, tmp_path_factory.mktemp("host"))
    yield made
    made.close()
    kernel.remove()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_mistake_has_one_message(row: Row, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert row.grade in GRADES
    code = host.apply(row)
    out, err = capsys.readouterr()
    refused = "refused: " if row.message.startswith("refused: ") else ""
    expected = f"web: {refused}{host.folder}/web.yaml:{host.fill(row.message.removeprefix('refused: '))}\n"
    assert (code, out, err) == (row.code, "", expected)


def test_no_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["sandbox", "start", UNKNOWN]) == 2
    expected = "reconciler: qemu-system-x86_64 is missing: install the Debian package qemu-system-x86\n"
    assert capsys.readouterr() == ("", expected)


def test_no_ipvs(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    if Path("/proc/net/ip_vs").exists():
        pytest.skip("this kernel has IPVS")
    row = Row("", "excellent", "", below="ipvs: {services: []}")
    assert host.apply(row) == 2
    said = (
        "5:7: ipvs: this kernel has no IPVS: its module ip_vs is missing or cannot be loaded; `modprobe ip_vs` says why"
    )
    assert capsys.readouterr() == ("", f"web: {host.folder}/web.yaml:{said}\n")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("words", [["stop", UNKNOWN], ["exec", UNKNOWN, "true"]], ids=["stop", "exec"])
def test_no_such_machine(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", *words]) == 2
    expected = f"reconciler: there is no sandbox {UNKNOWN}; `reconciler sandbox list` lists them\n"
    assert capsys.readouterr() == ("", expected)
