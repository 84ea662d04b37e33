"""What keeps `doctor` from looking into a domain is a finding with a command that mends it; it changes nothing."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.drivers.vm import binding
from tests.doctor.ward import Said
from tests.libvirt.daemon import Daemon, channel, virsh
from tests.machine import Guest

MANIFEST = "apiVersion: reconciler/v1\nsandbox: box\ndriver: {{libvirt: {{domain: {domain}}}}}\nroutes: []\n"
# Nothing runs in it.
_BARE = """\
<domain type='qemu'><name>bare</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/>
<controller type='usb' model='none'/>{devices}</devices></domain>
"""


@pytest.fixture(autouse=True)
def _box(domain: Guest) -> None:
    """Run in the namespace of libvirtd."""


def doctor(folder: Path, name: str) -> Said:
    file = folder / "box.yaml"
    file.write_text(MANIFEST.format(domain=name))
    with redirect_stdout(io.StringIO()) as printed:
        code = main(["doctor", "-o", "json", str(file)])
    return Said(code, json.loads(printed.getvalue()))


def found(folder: Path, name: str = "box") -> dict[str, str]:
    """Return what was found of the domain: check → command."""
    said = doctor(folder, name)
    assert said.code == 1
    return {each["check"]: each["command"] for each in said.data["findings"] if each["about"] == "box"}


@contextmanager
def bare(devices: str) -> Iterator[None]:
    virsh("create", "/dev/stdin", stdin=_BARE.format(devices=devices))
    try:
        yield
    finally:
        virsh("destroy", "bare")


def test_domains_that_are_not_there(tmp_path: Path) -> None:
    apply = f"reconciler apply {tmp_path}/box.yaml"
    listed = "`virsh list --all` lists those that there are"
    assert found(tmp_path, "none") == {"sandbox-missing": f"virsh start none && {apply}    # {listed}"}
    virsh("define", "/dev/stdin", stdin=_BARE.format(devices=""))
    try:
        assert list(found(tmp_path, "bare")) == ["sandbox-missing"]
    finally:
        virsh("undefine", "bare")


def test_an_agent_that_cannot_be_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Other tests may have left the channel: who wants nothing in the domain takes it out.
    (tmp_path / "box.yaml").write_text(MANIFEST.format(domain="box"))
    assert main(["apply", str(tmp_path / "box.yaml")]) == 0, capsys.readouterr()
    untouched = virsh("dumpxml", "box")
    assert found(tmp_path) == {"channel-missing": f"reconciler apply {tmp_path}/box.yaml"}
    assert virsh("dumpxml", "box") == untouched
    with bare(""):
        assert found(tmp_path, "bare") == {"controller-missing": "virsh edit bare"}
    with bare(channel("reconciler.agent")):
        assert found(tmp_path, "bare") == {"machine-silent": "virsh domstate bare --reason; virsh resume bare"}
        virsh("suspend", "bare")
        assert list(found(tmp_path, "bare")) == ["machine-silent"]


def test_a_libvirt_that_cannot_be_reached(tmp_path: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.stop()
    try:
        assert found(tmp_path) == {"libvirt-missing": "systemctl start libvirtd; systemctl status libvirtd"}
    finally:
        daemon.start()
    monkeypatch.setitem(sys.modules, "libvirt", None)
    monkeypatch.setattr(binding, "_DEBIAN", "/nowhere")
    assert found(tmp_path) == {"libvirt-binding": "apt-get install python3-libvirt"}
