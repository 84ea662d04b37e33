"""QEMU's command line for a machine of `reconciler sandbox`, and its console. For QEMU 7.2, with TCG or KVM."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from reconciler.guest import agent, runner
from reconciler.guest.image import Image

PROGRAM = "qemu-system-x86_64"
# MiB of memory.
MEMORY = 512
# NICs that can be plugged, each into a root port. 16 ports make the boot 1 s longer, 32 make it 4.5 s longer.
PORTS = 16
# The slot of pcie.0 where the root ports begin, eight to a slot. QEMU uses slots 1 and 31, the serial bus another one.
_FIRST_SLOT = 0x10
# Bytes of console output that QEMU keeps, a power of two.
_CONSOLE_SIZE = 1 << 16
# Nothing but what is named.
_ALONE = ("-nodefaults", "-no-user-config", "-display", "none")
# Seconds for QEMU to send the console.
_CONSOLE_TIMEOUT = 2.0


def pid_file(folder: str) -> str:
    """Return the file into which QEMU writes its process id. QEMU's command line contains this path."""
    return os.path.join(folder, "pid")


def command_line(folder: str, image: Image, accelerator: str, memory: int, ports: int) -> list[str]:
    """Return the command that starts a machine with its sockets in `folder`. It ends when QEMU is set up."""
    words = [PROGRAM, *_ALONE, "-daemonize", "-pidfile", pid_file(folder)]
    # vhost-user needs shared memory, and QEMU reports nothing if the memory is not shared.
    words += ["-machine", f"q35,accel={accelerator},memory-backend=memory", "-m", str(memory)]
    words += ["-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on", "-cpu", "max", "-smp", "2"]
    for number in range(ports):
        slot, function = _FIRST_SLOT + number // 8, number % 8
        place = f"addr={slot:#x}.{function},multifunction={'off' if function else 'on'}"
        words += ["-device", f"pcie-root-port,id=port{number},chassis={number + 1},slot={number + 1},{place}"]
    words += ["-device", "virtio-serial-pci,id=serial"]
    for name, port in (("agent", agent.PORT), ("exec", runner.PORT)):
        words += ["-chardev", f"socket,id={name},path={folder}/{name}.sock,server=on,wait=off", *_port(name, port)]
    for name in ("qmp", "qmp2"):
        words += ["-qmp", f"unix:{folder}/{name}.sock,server=on,wait=off"]
    words += ["-chardev", f"ringbuf,id=console,size={_CONSOLE_SIZE}", "-serial", "chardev:console"]
    return words + _boot(image)


def throwaway_command_line(image: Image, accelerator: str, ports: Mapping[str, int]) -> list[str]:
    """Return the command that runs a machine without any file: the console is standard output.

    `ports`: names of virtio-serial ports, each with a connected socket that QEMU inherits.
    """
    words = [PROGRAM, *_ALONE, "-machine", f"q35,accel={accelerator}", "-m", str(MEMORY), "-cpu", "max", "-smp", "1"]
    words += ["-device", "virtio-serial-pci,id=serial"]
    for number, (port, descriptor) in enumerate(ports.items()):
        name = f"port{number}"
        words += ["-chardev", f"socket,id={name},fd={descriptor}", *_port(name, port)]
    return [*words, "-serial", "stdio", *_boot(image)]


def _port(name: str, port: str) -> list[str]:
    # Without an id QEMU sends no events when the guest opens the port.
    return ["-device", f"virtserialport,id={name}-port,chardev={name},name={port}"]


def _boot(image: Image) -> list[str]:
    return ["-kernel", image.kernel, "-initrd", image.initramfs, "-append", "console=ttyS0 quiet", "-no-reboot"]


def console(monitor: str) -> str:
    """Return the end of the guest's console output, by the socket of the monitor. "" if QEMU does not send it."""
    request = {"device": "console", "size": _CONSOLE_SIZE, "format": "base64"}
    with suppress(OSError, ValueError, KeyError, TypeError), socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(_CONSOLE_TIMEOUT)
        channel.connect(monitor)
        with channel.makefile("rw", encoding="utf-8") as lines:
            lines.readline()
            for command, arguments in (("qmp_capabilities", {}), ("ringbuf-read", request)):
                lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    if "error" in answer:
                        return ""
        return base64.b64decode(answer["return"]).decode(errors="replace").replace("\r", "")
    return ""
