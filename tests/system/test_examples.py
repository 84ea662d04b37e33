"""Everything a reader is shown works as shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.main import COMMANDS, main
from tests.conftest import Kernel
from tests.machine import Guest
from tests.system.box import Box

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
IN_MACHINES = [path for path in EXAMPLES if "vm: {" in path.read_text()]
IN_NAMESPACES = [path for path in EXAMPLES if path not in IN_MACHINES]


@pytest.mark.parametrize("example", IN_NAMESPACES, ids=lambda path: path.name)
def test_an_example_applies_to_a_real_namespace(box: Box, kernel: Kernel, example: Path) -> None:
    text = example.read_text()
    for device in re.findall(r"device: (tap\S*)", text):
        text = text.replace(device, kernel.tap())
    text = re.sub(r"netns: \{.*\}", f"netns: {{name: {box.namespace}}}", text)
    box.file.write_text(text)
    assert main(["apply", str(box.file)]) == 0
    assert main(["diff", str(box.file)]) == 0


@pytest.mark.parametrize("example", IN_MACHINES, ids=lambda path: path.name)
def test_an_example_applies_to_a_real_machine(guest: Guest, kernel: Kernel, tmp_path: Path, example: Path) -> None:
    text = example.read_text()
    for device in re.findall(r"device: (tap\S*)", text):
        text = text.replace(device, kernel.tap())
    file = tmp_path / example.name
    file.write_text(re.sub(r"vm: \{.*\}", f"vm: {{name: {guest.sandbox.name}}}", text))
    for rules in re.findall(r"rulesFile: (\S+)", text):
        (tmp_path / rules).write_text((example.parent / rules).read_text())
    guest.output("ip", "address", "add", "10.9.9.9/32", "dev", "lo")
    try:
        assert main(["apply", str(file)]) == 0
        assert main(["diff", str(file)]) == 0
        assert "-A -t " in guest.output("ipvsadm", "-Sn")
    finally:
        empty = f"{text.partition('interfaces:')[0].partition('ipvs:')[0]}interfaces: []\nroutes: []\n"
        file.write_text(re.sub(r"vm: \{.*\}", f"vm: {{name: {guest.sandbox.name}}}", empty))
        assert main(["apply", "--allow-delete", "all", str(file)]) == 0
        guest.output("ipvsadm", "-C")
        guest.output("sysctl", "-qw", "net.ipv4.ip_forward=0")
        guest.output("ip", "address", "del", "10.9.9.9/32", "dev", "lo")


@pytest.mark.usefixtures("root")
def test_the_demo() -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(ROOT / "examples" / "demo.sh")],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert "vm-1: applied 10 operations in " in done.stdout
    assert "1 received" in done.stdout
    assert "vm-1: in sync" in done.stdout
    assert "vm-1: applied 20,001 operations in " in done.stdout
    assert "1 sandbox: 0 to add, 1 to change, 0 to delete. Fingerprint " in done.stdout
    assert "vm-1: applied 20,000 operations in " in done.stdout
    assert "\x1b" not in done.stdout


def test_the_manifests_of_the_readme_are_valid(tmp_path: Path) -> None:
    manifests = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "readme.yaml").write_text("---\n".join(manifests))
    assert main(["validate", str(tmp_path / "readme.yaml")]) == 0


def test_help_and_readme_name_the_same_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = re.findall(r"^    ([a-z-]+)(?: |$)", capsys.readouterr().out, re.MULTILINE)
    assert shown == list(COMMANDS)
    assert re.findall(r"^\| `reconciler ([a-z-]+)[ `]", (ROOT / "README.md").read_text(), re.MULTILINE) == shown


def test_make_help_names_every_target_of_the_readme() -> None:
    shown = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], check=True, capture_output=True, text=True).stdout
    listed = re.findall(r"^  make ([a-z]+)", shown, re.MULTILINE)
    assert {"demo", "test", "lint", "bench", "help"} <= set(listed)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)) <= set(listed)
