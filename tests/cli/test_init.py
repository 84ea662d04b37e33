"""`init` prints a valid manifest of what is there, which changes nothing; what is switched off is valid as well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from reconciler.cli.main import main
from reconciler.manifest.starter import Device, Found, starter
from reconciler.model.sandbox import NetnsAddress, Sandbox, VmAddress
from tests.conftest import Kernel, ip
from tests.watch.running import until

_OFF = re.compile(r"^#( {2,}|[^ ])", re.MULTILINE)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["init", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def switched_on(text: str) -> str:
    return _OFF.sub(r"\1", text)


def run(capsys: pytest.CaptureFixture[str], command: str, text: str) -> tuple[int, str]:
    """Run a command with a manifest. Return its exit code and what is on stdout, or else on stderr."""
    Path("m.yaml").write_text(text, encoding="utf-8")
    code = main([command, "m.yaml"])
    out, err = capsys.readouterr()
    return code, out or err


def test_a_namespace_that_is_configured_and_devices_of_the_host(
    kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    name, ours, other = kernel.namespace(), kernel.tap(), kernel.tap()
    ip("link", "set", ours, "address", "02:00:00:00:00:0a", "mtu", "1400")
    Path("own.yaml").write_text(
        f"apiVersion: reconciler/v1\nsandbox: {name}\ndriver: {{netns: {{name: {name}}}}}\n"
        f"interfaces: [{{name: eth0, device: {ours}, hwAddr: 02:00:00:00:00:0b, mtu: 1400, "
        "addresses: [10.1.0.2/24]}]\n"
        "routes: [{dest: 10.9.0.0/16, gateway: 10.1.0.1, device: eth0}]\n"
    )
    assert main(["apply", "own.yaml"]) == 0
    ip("-n", name, "route", "add", "203.0.113.0/24", "via", "10.1.0.1", "proto", "static")
    capsys.readouterr()
    text = init(capsys, "--netns", name)
    assert run(capsys, "validate", text) == (0, "1 manifest valid\n")
    assert run(capsys, "diff", text)[0] == 0
    # What reconciler owns is switched on; what it does not own, and what else could be there, is not.
    data = yaml.safe_load(text)
    assert data["interfaces"] == [
        {"name": "eth0", "device": ours, "hwAddr": "02:00:00:00:00:0b", "mtu": 1400, "addresses": ["10.1.0.2/24"]}
    ]
    assert data["routes"] == [{"dest": "10.9.0.0/16", "gateway": "10.1.0.1", "device": "eth0"}]
    assert data.keys() == {"apiVersion", "sandbox", "driver", "interfaces", "routes"}
    assert "\n# |   203.0.113.0/24 via 10.1.0.1 dev eth0" in text
    everything = switched_on(text)
    assert run(capsys, "validate", everything) == (0, "1 manifest valid\n")
    given = [each for each in yaml.safe_load(everything)["interfaces"] if each["device"] == other]
    # While other tests change devices of the host, they may be read a moment later.

    def unwrapped() -> str:
        return init(capsys, "--netns", name).replace("\n# ", " ")

    until(lambda: f"{other} (tun, down)" in (found := unwrapped()) or " more." in found)
    assert given == [] or given[0]["name"] != "eth0"


def test_what_is_switched_on_can_be_applied(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    name, device = kernel.namespace(), kernel.tap()
    lines = list(
        starter(
            Found(
                sandbox=Sandbox(id="new", driver=NetnsAddress(name=name)),
                schema="schema.json",
                devices=[Device(device, "tun", "02:00:00:00:00:0c", 1500, 1, up=False)],
            )
        )
    )
    # There is no IPVS in the kernel of each host that runs this.
    text = switched_on("\n".join(lines).partition("\n# the IPVS table")[0])
    assert run(capsys, "apply", text)[0] == 0
    assert "192.0.2.10/24" in ip("-n", name, "-o", "address", "show", "dev", "eth0")
    assert run(capsys, "diff", text)[0] == 0


@pytest.mark.parametrize("driver", [NetnsAddress(name="web-1"), VmAddress(name="web-1")], ids=str)
@pytest.mark.parametrize("count", [0, 1, 4, 40])
def test_with_any_number_of_devices_all_of_it_is_valid(
    driver: NetnsAddress | VmAddress, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    devices = [Device(f"t{n}", "tun", f"02:00:00:00:00:{n:02x}", 65535, 1 + n % 2, up=True) for n in range(count)]
    found = Found(sandbox=Sandbox(id="web-1", driver=driver), schema="s", devices=devices, taken={"eth0", "lo"})
    text = "\n".join((*starter(found), ""))
    assert yaml.safe_load(text).keys() == {"apiVersion", "sandbox", "driver"}
    data = yaml.safe_load(switched_on(text))
    assert run(capsys, "validate", text)[0] == run(capsys, "validate", switched_on(text))[0] == 0
    assert data.keys() == yaml.safe_load(text).keys() | {
        "sysctls",
        "interfaces",
        "neighbours",
        "routes",
        "rules",
        "ipvs",
    }
    assert len(data["interfaces"]) == min(max(count, 1), 16)
    assert ("and 24 more" in text) == (count == 40)
    # A machine's NIC has another MAC address than its TAP.
    macs = {each["hwAddr"] for each in data["interfaces"]} & {each.hw_addr for each in devices}
    assert bool(macs) == (count > 0 and isinstance(driver, NetnsAddress))
    assert all(line.isascii() and len(line) <= 120 for line in text.splitlines())


def test_a_sandbox_that_does_not_exist_yet(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    text = init(capsys, "--netns", "no-such", "--sandbox", "edge-1")
    assert yaml.safe_load(text) == {
        "apiVersion": "reconciler/v1",
        "sandbox": "edge-1",
        "driver": {"netns": {"name": "no-such"}},
    }
    assert "it does not exist yet; `ip netns add no-such` makes it" in " ".join(text.replace("\n#", "").split())
    text = init(capsys, "--vm", "no-such")
    assert yaml.safe_load(text)["driver"] == {"vm": {"name": "no-such"}}
    assert "could not be read" in text
    assert run(capsys, "validate", text)[0] == run(capsys, "validate", switched_on(text))[0] == 0


def test_without_a_name_a_namespace_of_the_host_is_taken(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.namespace()
    text = init(capsys)
    name = yaml.safe_load(text)["driver"]["netns"]["name"]
    assert name in ip("netns", "list").split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--netns", "a b"], '--netns: "a b" is not valid; expected the name of a network namespace in /run/netns'),
        (["--netns", ""], '--netns: "" is not valid; expected the name of a network namespace in /run/netns'),
        (
            ["--vm", "a", "--sandbox", "*"],
            '--sandbox: "*" is not valid; expected a sandbox ID or name: ',
        ),
    ],
)
def test_a_wrong_name(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith(f"reconciler: {expected}")) == ("", True)


@pytest.mark.parametrize(("name", "identity"), [("a:b@c", "a-b-c"), ("_x", "s_x"), ("w" * 100, "w" * 64), ("7", "7")])
def test_an_id_is_made_of_any_name(name: str, identity: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = init(capsys, "--netns", name)
    assert str(yaml.safe_load(text)["sandbox"]) == identity
    assert run(capsys, "validate", text)[0] == 0


def test_names_of_a_sandbox_are_made_printable(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    name = kernel.namespace()
    ip("-n", name, "link", "add", "a\x1b[2J#\u202e", "type", "veth", "peer", "name", "-{x")
    text = init(capsys, "--netns", name)
    assert text.replace("\n", "").isprintable()
    assert "\n# |   a\\x1b[2J#\\u202e" in text
    assert run(capsys, "validate", text)[0] == run(capsys, "validate", switched_on(text))[0] == 0
