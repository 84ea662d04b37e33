"""The channel of our agent that we plug into a running machine: a virtio-serial port with a socket of ours.

The socket is bound here, in a folder of root, and QEMU gets the descriptor: so it needs no right to any folder. It
accepts on it until it ends. Its ids differ from those of NICs: what they begin with is a NIC that was left.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.guest import agent
from reconciler.guest.answer import Answer
from reconciler.guest.qmp import Monitor, QmpError
from reconciler.model.sandbox import CHANNELS

_ID = "rcagent"
_PERIPHERALS = "/machine/peripheral"
# Seconds. The guest is not asked.
_UNPLUG_TIMEOUT = 5.0


def plug(monitor: Monitor, path: str) -> None:
    """Plug the channel in, unless it is there. HostError if the machine has no virtio-serial bus with a free port."""
    if _is_chardev(monitor) and is_served(path):
        complete(monitor)
        return
    unplug(monitor, path)
    rundir.make(CHANNELS)
    with suppress(FileNotFoundError):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        listener.bind(path)
        listener.listen()
        address = {"type": "fd", "data": {"str": _ID}}
        backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
        monitor.pass_descriptor(listener.fileno(), _ID)
        monitor.add_chardev(_ID, backend)
    try:
        complete(monitor)
    except HostError:
        _remove_chardev(monitor, path)
        raise


def complete(monitor: Monitor) -> None:
    """Plug the port in, if a run that was killed has made its socket only. HostError if that is impossible."""
    if not _is_chardev(monitor) or _is_device(monitor):
        return
    try:
        monitor.execute("device_add", driver="virtserialport", id=_ID, chardev=_ID, name=agent.PORT)
    except QmpError as error:
        raise HostError(
            f"no channel for reconciler's agent can be plugged into the machine ({error}); it needs `-device "
            "virtio-serial-pci`. If it has a port for that agent already, write the socket as `agent`"
        ) from error


def unplug(monitor: Monitor, path: str) -> None:
    """Unplug the channel, if it is there."""
    if _is_device(monitor):
        monitor.execute("device_del", id=_ID)
        monitor.await_event("DEVICE_DELETED", lambda data: data.get("device") == _ID, _UNPLUG_TIMEOUT)
    if _is_chardev(monitor):
        _remove_chardev(monitor, path)


def _remove_chardev(monitor: Monitor, path: str) -> None:
    monitor.execute("chardev-remove", id=_ID)
    # QEMU deletes the socket as well, if it sees the same folders.
    with suppress(FileNotFoundError):
        os.unlink(path)


def is_closed(monitor: Monitor, path: str) -> bool:
    """Return whether no program in the guest has opened the port that this socket leads to. False if nobody knows."""
    for each in Answer(monitor.execute("query-chardev"), "query-chardev"):
        names = {f"unix:{path},server=on", f"unix:{path},server"}
        if each["filename"].text().removeprefix("disconnected:") in names and not each["frontend-open"].flag():
            return True
    return False


def _is_device(monitor: Monitor) -> bool:
    listed = Answer(monitor.execute("qom-list", path=_PERIPHERALS), "qom-list")
    return any(each["name"].text() == _ID for each in listed)


def _is_chardev(monitor: Monitor) -> bool:
    return any(each["label"].text() == _ID for each in Answer(monitor.execute("query-chardev"), "query-chardev"))


def is_served(path: str) -> bool:
    """Return whether a process listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True
