"""QEMU's command line for a sandbox, and a look at its console. As measured: TCG and KVM, QEMU 7.2."""

from __future__ import annotations

import base64
import json
import os
import socket
from contextlib import suppress

from reconciler.guest import agent, runner
from reconciler.guest.image import Image

PROGRAM = "qemu-system-x86_64"
# MiB of memory; NICs that can be plugged in: 16 ports cost a second of the boot, 32 four and a half.
MEMORY, PORTS = 512, 16
# Where the root ports begin on pcie.0, eight functions a slot; slots 1 and 31 are QEMU's own and the serial bus's.
_FIRST_SLOT, MAX_PORTS = 0x10, 96
# Bytes of console that QEMU keeps, a power of two.
_CONSOLE_SIZE = 1 << 16
_MONITOR_TIMEOUT = 2.0


def pid_file(folder: str) -> str:
    """Give the file into which QEMU writes its process id; its command line names it."""
    return os.path.join(folder, "pid")


def command_line(folder: str, image: Image, accelerator: str, memory: int, ports: int) -> list[str]:
    """Give the command that starts a sandbox with its sockets in `folder`, and leaves once it is set up."""
    words = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-daemonize", "-pidfile", pid_file(folder)]
    # Shared memory is what vhost-user needs; QEMU says nothing where it is missing.
    words += [
        "-machine",
        f"q35,accel={accelerator},memory-backend=memory",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        str(memory),
    ]
    words += ["-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"]
    for number in range(ports):
        slot, function = _FIRST_SLOT + number // 8, number % 8
        place = f"addr={slot:#x}.{function},multifunction={'off' if function else 'on'}"
        words += ["-device", f"pcie-root-port,id=port{number},chassis={number + 1},slot={number + 1},{place}"]
    words += ["-device", "virtio-serial-pci,id=serial"]
    for name, port in (("agent", agent.PORT), ("exec", runner.PORT)):
        words += ["-chardev", f"socket,id={name},path={folder}/{name}.sock,server=on,wait=off"]
        # Without an id QEMU sends no events when the guest opens the port.
        words += ["-device", f"virtserialport,id={name}-port,chardev={name},name={port}"]
    for name in ("qmp", "qmp2"):
        words += ["-qmp", f"unix:{folder}/{name}.sock,server=on,wait=off"]
    words += ["-chardev", f"ringbuf,id=console,size={_CONSOLE_SIZE}", "-serial", "chardev:console"]
    words += ["-kernel", image.kernel, "-initrd", image.initramfs, "-append", "console=ttyS0 quiet", "-no-reboot"]
    return words


def console(monitor: str) -> str:
    """Give the end of what the guest wrote to its console, "" if QEMU does not say."""
    request = {"device": "console", "size": _CONSOLE_SIZE, "format": "base64"}
    with suppress(OSError, ValueError, KeyError, TypeError), socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(_MONITOR_TIMEOUT)
        channel.connect(monitor)
        with channel.makefile("rw", encoding="utf-8") as lines:
            lines.readline()
            for command, arguments in (("qmp_capabilities", {}), ("ringbuf-read", request)):
                lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    if "error" in answer:
                        return ""
        text = base64.b64decode(answer["return"]).decode(errors="replace").replace("\r", "")
        return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    return ""
