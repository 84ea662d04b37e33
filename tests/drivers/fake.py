"""A monitor that answers as QEMU 7.2 was recorded to, and a real QEMU without a guest."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.guest.qmp import Monitor, QmpError
from reconciler.values import dataclass, field

Pci = dict[str, Any]


def pci(slot: int, name: str = "", function: int = 0, bus: int = 0) -> Pci:
    """A device of `query-pci`, as far as anyone looks at it."""
    return {"bus": bus, "slot": slot, "function": function, "qdev_id": name}


def bridge(slot: int, name: str, *devices: Pci, function: int = 0) -> Pci:
    """A bridge or root port of `query-pci`."""
    inner = [device | {"bus": slot} for device in devices]
    return pci(slot, name, function) | {"pci_bridge": {"bus": {"number": 0, "secondary": slot}, "devices": inner}}


@dataclass
class Fake(Monitor):
    """What a machine has, as the commands of a monitor tell it. `asked` keeps the commands."""

    pci: Sequence[Pci] = ()
    # Id → type, beside NICs.
    peripherals: Mapping[str, str] = field(default_factory=dict)
    # Id → MAC address.
    nics: dict[str, str] = field(default_factory=dict)
    network: str = ""
    # Label → path and whether it is connected.
    chardevs: dict[str, tuple[str, bool]] = field(default_factory=dict)
    machine: str = "pc-q35-7.2-machine"
    kvm: bool = False
    memory: Sequence[bool] = (True,)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def execute(self, command: str, **arguments: Any) -> Any:
        self.asked.append((command, arguments))
        match command:
            case "qom-list":
                assert arguments == {"path": "/machine/peripheral"}
                types = {**self.peripherals, **dict.fromkeys(self.nics, "virtio-net-pci")}
                devices = [{"name": name, "type": f"child<{type_}>"} for name, type_ in types.items()]
                return [{"name": "type", "type": "string"}, *devices]
            case "qom-get":
                return self._property(arguments["path"], arguments["property"])
            case "query-pci":
                return [{"bus": 0, "devices": list(self.pci)}]
            case "query-chardev":
                return [
                    {"label": label, "frontend-open": True, "filename": f"unix:{'' if connected else path}"}
                    for label, (path, connected) in self.chardevs.items()
                ]
            case "query-kvm":
                return {"enabled": self.kvm, "present": True}
            case "query-memdev":
                return [{"id": f"mem{number}", "share": share} for number, share in enumerate(self.memory)]
            case "human-monitor-command":
                assert arguments == {"command-line": "info network"}
                return self.network.replace("\n", "\r\n")
            case _:
                raise AssertionError(command)

    def _property(self, path: str, name: str) -> Any:
        if (path, name) == ("/machine", "type"):
            return self.machine
        folder, _, id_ = path.rpartition("/")
        if folder == "/machine/peripheral" and id_ in self.nics and name == "mac":
            return self.nics[id_]
        if folder == "/machine/peripheral" and id_ in self.nics and name == "host_mtu":
            return 0
        if folder == "/chardevs" and id_ in self.chardevs:
            address, connected = self.chardevs[id_]
            return {"addr": {"type": "unix", "path": address}, "connected": connected}[name]
        raise QmpError("qom-get", "DeviceNotFound", f"Device '{path}' not found")


@dataclass
class Scripted(Monitor):
    """Gives each command its next answer, `{}` if none is left; raises those that are errors. Events come in order."""

    answers: dict[str, list[object]] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def execute(self, command: str, **arguments: Any) -> Any:
        self.asked.append((command, arguments))
        left = self.answers.get(command)
        answer = left.pop(0) if left else {}
        if isinstance(answer, Exception):
            raise answer
        return answer

    def await_event(self, name: str, matches: Callable[[Mapping[str, Any]], bool], timeout: float) -> bool:
        self.waited.append(timeout)
        while self.events:
            found, data = self.events.pop(0)
            if found == name and matches(data):
                return True
        time.sleep(timeout)
        return False


def _listens(path: Path) -> bool:
    """Tell whether somebody listens on a socket, as `ss` shows it; a connection would take QEMU's only place."""
    # With -l, it would also show what has a path and does not listen yet.
    shown = subprocess.run(["ss", "-Hx", "state", "listening"], capture_output=True, text=True, check=True)
    return str(path) in shown.stdout.split()


@contextmanager
def qemu(folder: Path, *words: str) -> Iterator[Monitor]:
    """Run a QEMU whose guest is firmware only: that is what numbers the buses."""
    path = folder / "qmp.sock"
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-m", "64"]
    process = subprocess.Popen([*command, "-qmp", f"unix:{path},server=on,wait=off", *words], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        # Until QEMU listens: it makes the path first.
        while not _listens(path):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        with Monitor(str(path)) as monitor:
            while not _is_numbered(monitor):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield monitor
    finally:
        process.kill()
        process.wait(60)


def _is_numbered(monitor: Monitor) -> bool:
    (root,) = monitor.execute("query-pci")
    # A bridge without a number hides what is behind it.
    bridges = [each["pci_bridge"]["bus"] for each in root["devices"] if "pci_bridge" in each]
    return all(bus["secondary"] for bus in bridges)
