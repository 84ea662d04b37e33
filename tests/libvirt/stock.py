"""The stock Debian of tests/stock.py as a domain of libvirt, restored from a saved state.

It boots once, which takes a minute with TCG, and libvirt saves it below the cache of the guest's images.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reconciler.guest import qemu
from tests import stock
from tests.libvirt.daemon import virsh

NAME = "stock"
_DISK = "/nowhere/disk"
_BOOT_TIMEOUT = 300.0
_DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name><uuid>6b2e4f0a-3f0e-4b52-9e43-0f6d0c6b7a12</uuid><memory unit='MiB'>512</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{base}/vmlinuz</kernel><initrd>{base}/initrd</initrd>
  <cmdline>{cmdline}</cmdline></os>
  <features><acpi/></features><cpu mode='maximum'>{features}</cpu>
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>/usr/bin/{program}</emulator>
    {ports}
    <controller type='virtio-serial' index='0'/><controller type='usb' model='none'/><memballoon model='none'/>
    <disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe'/><source file='{disk}'/>
    <target dev='vda' bus='virtio'/></disk>
    <serial type='null'/>
    <channel type='unix'><source mode='bind'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices>
</domain>
"""


def _xml(disk: str) -> str:
    # One for the disk and one for the serial bus, beside those for NICs.
    ports = "".join(f"<controller type='pci' index='{each}' model='pcie-root-port'/>" for each in range(1, 9))
    slow = ("avx", "avx2", "fma", "f16c", "erms")
    return _DOMAIN.format(
        name=NAME,
        base=stock.base(),
        cmdline=escape(stock.COMMAND_LINE),
        features="".join(f"<feature policy='disable' name='{each}'/>" for each in slow),
        program=qemu.PROGRAM,
        ports=ports,
        disk=disk,
    )


class Domain(stock.Stock):
    """A machine that runs. Commands run in it through libvirt."""

    def output(self, script: str, timeout: float = 30.0) -> str:
        """Run a script in the guest. Give what it prints, errors included."""
        deadline = time.monotonic() + timeout
        words = {"path": "/bin/sh", "arg": ["-c", f"exec 2>&1; {script}"], "capture-output": True}
        pid = _ask("guest-exec", words)["pid"]
        while not (found := _ask("guest-exec-status", {"pid": pid}))["exited"]:
            if time.monotonic() > deadline:
                raise TimeoutError(script)
            time.sleep(0.05)
        return base64.b64decode(found.get("out-data", "")).decode()


def _ask(command: str, arguments: dict[str, Any]) -> Any:
    words = json.dumps({"execute": command, "arguments": arguments})
    done = subprocess.run(["virsh", "qemu-agent-command", NAME, words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr)
    return json.loads(done.stdout)["return"]


def _saved() -> Path:
    """Return the folder with the saved state, and the disk that belongs to it; make it if there is none."""
    program = os.stat(shutil.which(qemu.PROGRAM) or qemu.PROGRAM)
    text = repr((program.st_size, program.st_mtime_ns, _xml(_DISK)))
    folder = stock.base() / f"domain-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    with stock.locked("stock.lock"):
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            _copy(stock.base(), new)
            virsh("create", "/dev/stdin", stdin=_xml(f"{new}/disk"))
            machine = Domain(new)
            machine.await_answer()
            machine.output("systemctl is-system-running --wait; sync", _BOOT_TIMEOUT)
            virsh("save", NAME, f"{new}/state")
            new.rename(folder)
    return folder


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", f"{source}/disk", f"{target}/disk"], check=True)


@contextmanager
def started(folder: Path) -> Iterator[Domain]:
    """Restore the machine, with its disk in a folder; end it afterwards."""
    saved = _saved()
    _copy(saved, folder)
    virsh("restore", f"{saved}/state", "--xml", "/dev/stdin", stdin=_xml(f"{folder}/disk"))
    try:
        machine = Domain(folder)
        machine.await_answer()
        yield machine
    finally:
        subprocess.run(["virsh", "destroy", NAME], capture_output=True, check=False)
