"""A stock Debian 12 with systemd, networkd and qemu-guest-agent, and nothing of ours in it; resumed from a saved state.

debootstrap makes it once, below the cache of the guest's images. Then it boots once, which takes a minute with TCG, and
its state is saved while the guest agent answers. Each machine is resumed from there in a second, with its own disk.
Commands run in it through the guest agent's socket, by a client that shares nothing with ours: `Stock.output`.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from reconciler.guest import image, qemu
from reconciler.values import dataclass
from tests.resumed import migrate

# NetworkManager does not run until a test starts it. It needs a logind: debootstrap does not know who provides that.
INCLUDED = (
    "systemd-sysv,dbus,udev,qemu-guest-agent,python3,linux-image-cloud-amd64,iproute2,network-manager,libpam-systemd"
)
# As cloud images have it.
_NETWORKD = "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n"
_UNWANTED = ("NetworkManager", "NetworkManager-wait-online", "systemd-networkd-wait-online", "apt-daily.timer")
_UNWANTED_MORE = ("apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer")
_DISK, _MEMORY = "2G", 512
# Root ports for NICs.
_PORTS = 4
_TIMEOUT, _BOOT_TIMEOUT = 900.0, 300.0
# Seconds for a script in a guest: on a busy host, to start NetworkManager takes it half a minute.
_PATIENCE = 300.0
_GUEST_AGENT = "org.qemu.guest_agent.0"
COMMAND_LINE = "console=ttyS0 root=/dev/vda rw quiet tsc=reliable mitigations=off nowatchdog norandmaps"


@dataclass
class Stock:
    """A machine that runs, with its sockets in a folder."""

    folder: Path

    @property
    def qmp(self) -> str:
        return f"{self.folder}/qmp.sock"

    @property
    def agent(self) -> str:
        return f"{self.folder}/agent.sock"

    @property
    def guest_agent(self) -> str:
        return f"{self.folder}/ga.sock"

    def output(self, script: str, timeout: float = _PATIENCE) -> str:
        """Run a script in the guest. Give what it prints, errors included."""
        deadline = time.monotonic() + timeout
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(timeout)
            channel.connect(self.guest_agent)
            channel.sendall(b'\xff{"execute":"guest-sync-delimited","arguments":{"id":7}}\n')
            with channel.makefile("rb") as lines:
                while not lines.readline().endswith(b'{"return": 7}\n'):
                    pass

                def ask(command: str, **arguments: Any) -> Any:
                    channel.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
                    answer = json.loads(lines.readline())
                    assert "return" in answer, answer
                    return answer["return"]

                words = ["-c", f"exec 2>&1; {script}"]
                pid = ask("guest-exec", path="/bin/sh", arg=words, **{"capture-output": True})["pid"]
                while not (found := ask("guest-exec-status", pid=pid))["exited"]:
                    if time.monotonic() > deadline:
                        raise TimeoutError(script)
                    time.sleep(0.2)
        return base64.b64decode(found.get("out-data", "")).decode()

    def restart_guest_agent(self) -> None:
        """Restart it, a moment after this returns: it knows nothing of programs that it ran before."""
        self.output(
            "systemd-run -q --on-active=0.2 --timer-property=AccuracySec=10ms systemctl restart qemu-guest-agent"
        )
        time.sleep(1.0)

    def answers(self) -> bool:
        """Give whether the guest agent answers."""
        try:
            return self.output("echo here", 5.0) == "here\n"
        except OSError:
            return False

    def await_answer(self, timeout: float = _BOOT_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        while not self.answers():
            assert time.monotonic() < deadline, "the guest agent does not answer"
            time.sleep(0.2)


@cache
def base() -> Path:
    """Return the folder with kernel, initramfs and disk; make it if there is none."""
    text = repr((INCLUDED, _NETWORKD, _UNWANTED, _UNWANTED_MORE, _DISK))
    folder = Path(image.cache_folder()) / f"stock-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    with locked("stock.lock"):
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            _build(new)
            new.rename(folder)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Be the only process that makes something below the cache."""
    folder = Path(image.cache_folder())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(folder: Path) -> None:
    root = folder / "root"
    _run("debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm", str(root))
    configure(root)
    _run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(folder / "disk"), _DISK)
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        (found,) = (root / "boot").glob(pattern)
        shutil.copy(found, folder / name)
    shutil.rmtree(root)


def configure(root: Path) -> None:
    """Make of a fresh Debian what cloud images are."""
    (root / "etc/systemd/network/10-all.network").write_text(_NETWORKD)
    (root / "etc/hostname").write_text("stock\n")
    (root / "etc/machine-id").write_text("5f3a9c1e7b2d4f60811a2b3c4d5e6f70\n")
    systemctl = ("chroot", str(root), "systemctl")
    _run(*systemctl, "enable", "systemd-networkd")
    _run(*systemctl, "disable", *_UNWANTED, *_UNWANTED_MORE)


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=_TIMEOUT)
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}\n{done.stderr}"


def command_line(folder: Path, disk: str, more: tuple[str, ...] = ()) -> list[str]:
    """Return the command that starts a machine with its sockets in `folder`, from a disk."""
    made = base()
    words = [qemu.PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,accel=tcg"]
    words += ["-cpu", "max,-avx,-avx2,-fma,-f16c,-erms", "-smp", "1", "-m", str(_MEMORY)]
    for number in range(_PORTS):
        place = f"addr=0x10.{number},multifunction={'off' if number else 'on'}"
        words += ["-device", f"pcie-root-port,id=port{number},chassis={number + 1},slot={number + 1},{place}"]
    words += ["-drive", f"file={disk},format=raw,if=virtio"]
    words += ["-device", "virtio-serial-pci,id=serial"]
    for name, port in (("agent", "reconciler.agent"), ("ga", _GUEST_AGENT)):
        words += ["-chardev", f"socket,id={name},path={folder}/{name}.sock,server=on,wait=off"]
        words += ["-device", f"virtserialport,id={name}-port,chardev={name},name={port}"]
    for name in ("qmp", "qmp2"):
        words += ["-qmp", f"unix:{folder}/{name}.sock,server=on,wait=off"]
    words += ["-serial", f"file:{folder}/console"]
    words += ["-kernel", f"{made}/vmlinuz", "-initrd", f"{made}/initrd", "-append", COMMAND_LINE]
    return [*words, *more]


@cache
def saved() -> Path:
    """Return the folder with the saved state, and the disk that belongs to it; make it if there is none."""
    program = os.stat(shutil.which(qemu.PROGRAM) or qemu.PROGRAM)
    text = repr((program.st_size, program.st_mtime_ns, command_line(Path(), "")))
    folder = base() / f"state-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    with locked("stock.lock"):
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            _save(new)
            new.rename(folder)
    return folder


def _save(folder: Path) -> None:
    """Boot, and save the state and the disk."""
    _run("cp", "--sparse=always", str(base() / "disk"), str(folder / "disk"))
    with _running(f"{folder}/disk") as machine:
        machine.await_answer()
        machine.output("systemctl is-system-running --wait; sync", _BOOT_TIMEOUT)
        migrate(machine.qmp, folder / "state", _BOOT_TIMEOUT)


@contextmanager
def _running(disk: str, more: tuple[str, ...] = ()) -> Iterator[Stock]:
    # Below /run, where sockets may be.
    with tempfile.TemporaryDirectory(prefix="stock-", dir="/run") as name:
        machine = Stock(Path(name))
        process = subprocess.Popen(command_line(machine.folder, disk, more))
        try:
            while not Path(machine.qmp).exists():
                assert process.poll() is None, "QEMU has ended"
                time.sleep(0.01)
            yield machine
        finally:
            process.kill()
            process.wait()


@contextmanager
def started() -> Iterator[Stock]:
    """Resume a machine; end it afterwards."""
    folder = saved()
    with _running(f"{folder}/disk", ("-snapshot", "-incoming", f"exec:cat {folder}/state")) as machine:
        machine.await_answer()
        yield machine
