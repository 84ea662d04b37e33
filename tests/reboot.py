"""`make soak`: a stock Debian under a watch is rebooted; the agent is pushed again, and the NIC is as it should be.

Once by QEMU's monitor, and once as a domain of libvirt.

    python -m tests.reboot

It boots with TCG, which takes a minute: too long for `make test`. Before that, the NIC is looked at for half a minute
in which its network manager could take it. Run it as root, while no other watcher runs on this host.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from reconciler.guest.qmp import Monitor
from tests import stock
from tests.allowed import write_policy
from tests.conftest import Kernel, ip
from tests.libvirt import stock as libvirt
from tests.libvirt.daemon import Daemon
from tests.machine import PROGRAM
from tests.stock import Stock

# Seconds for anything, and those in which a manager would have taken the NIC.
_TIMEOUT, _QUIET = 300.0, 30.0
# Seconds from the start of the guest agent until all is as it should be, on a host that has other work to do.
_LATE = 120.0
_ADDRESSES = "ip -j -4 address show dev eth-test"
# When the guest agent and ours have started, in microseconds since the boot of the guest.
_STARTED = "systemctl show -P ActiveEnterTimestampMonotonic qemu-guest-agent reconciler-agent"


def main() -> None:
    made = Kernel()
    tap = made.tap()
    ip("link", "set", tap, "up")
    try:
        with stock.started() as machine, tempfile.TemporaryDirectory() as folder:
            # The watcher plugs its own channel in.
            with Monitor(machine.qmp) as monitor:
                monitor.execute("device_del", id="agent-port")
            driver = f"{{vm: {{qmp: {machine.qmp}, guestAgent: {machine.guest_agent}}}}}"
            _watch(machine, Path(folder), tap, driver)
        daemon = Daemon()
        try:
            with daemon.entered(), tempfile.TemporaryDirectory() as folder:
                daemon.start()
                with libvirt.started(Path(folder)) as domain:
                    _watch(domain, Path(folder), tap, f"{{libvirt: {{domain: {libvirt.NAME}, guestAgent: true}}}}")
        finally:
            daemon.end()
    finally:
        made.remove()


def _watch(machine: Stock, folder: Path, tap: str, driver: str) -> None:
    manifest = folder / "web-9.yaml"
    nic = f"{{name: eth-test, device: {tap}, hwAddr: '02:42:20:6f:a3:71', mtu: 1500, addresses: [192.0.2.2/24]}}"
    manifest.write_text(f"apiVersion: reconciler/v1\nsandbox: web-9\ndriver: {driver}\ninterfaces: [{nic}]\n")
    policy = write_policy(folder / "policy.yaml", pushAgent=["web-*"])
    with (folder / "log").open("w") as log:
        watcher = subprocess.Popen([PROGRAM, "watch", str(manifest), "--policy", policy], stderr=log)
    try:
        _until(lambda: _state() == "converged")
        end = time.monotonic() + _QUIET
        while time.monotonic() < end:
            assert _is_right(machine)
            time.sleep(1)
        machine.output("systemd-run -q --on-active=0.5 systemctl reboot")
        _until(lambda: _state() != "converged")
        _until(lambda: _state() == "converged")
        assert _is_right(machine)
        guest_agent, ours = (int(each) / 1e6 for each in machine.output(_STARTED).split())
        print(f"the agent started {ours - guest_agent:.1f} s after the guest agent was back")
        assert ours - guest_agent < _LATE
    finally:
        watcher.terminate()
        watcher.wait()
        print((folder / "log").read_text())


def _is_right(machine: Stock) -> bool:
    listed = json.loads(machine.output(_ADDRESSES))
    return [each["local"] for link in listed for each in link.get("addr_info", [])] == ["192.0.2.2"]


def _state() -> str:
    done = subprocess.run([PROGRAM, "status", "-o", "json"], capture_output=True, text=True, check=False)
    try:
        return str(json.loads(done.stdout)["sandboxes"][0]["state"])
    except (ValueError, IndexError, KeyError):
        return ""


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.5)


if __name__ == "__main__":
    main()
