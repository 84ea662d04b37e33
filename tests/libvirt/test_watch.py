"""A watch of a domain that starts, is reset, saved, restored, migrated and ended, while libvirtd restarts as well."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest

from reconciler.errors import ReconcilerError
from reconciler.manifest.dump import dump
from tests.conftest import Kernel, ip
from tests.libvirt.daemon import Daemon, DomainMachine, domain, virsh
from tests.machine import Guest, run_command
from tests.system.box import MACS
from tests.watch.running import Running, watching

NAME, UUID = "watched", "6b2e4f0a-3f0e-4b52-9e43-0f6d0c6b7a13"
ADDRESSES = ("ip", "-j", "-4", "address", "show")


@pytest.fixture
def tap(kernel: Kernel) -> str:
    made = kernel.tap()
    ip("link", "set", made, "up")
    return made


@pytest.fixture
def watched(daemon: Daemon) -> Iterator[Guest]:
    """Define a domain with our image, which does not run; be in the namespace of libvirtd."""
    with daemon.entered():
        virsh("define", "/dev/stdin", stdin=domain(NAME, uuid=UUID, ports=2))
        try:
            yield Guest(DomainMachine(NAME))
        finally:
            subprocess.run(["virsh", "destroy", NAME], capture_output=True, check=False)
            virsh("undefine", NAME)


@pytest.fixture
def far() -> Iterator[Daemon]:
    """Start the libvirtd of another host."""
    made = Daemon("far")
    try:
        made.start()
        yield made
    finally:
        made.end()


def is_right(guest: Guest) -> bool:
    """Give whether the guest has our NIC with its address. It may be booting, so that nothing runs in it."""
    try:
        listed = json.loads(guest.output(*ADDRESSES))
    except (AssertionError, OSError, ReconcilerError, ValueError):
        return False
    found = {link["ifname"]: [each["local"] for each in link["addr_info"]] for link in listed}
    return found.get("eth7") == ["192.0.2.7"]


def converged_again(watch: Running, before: int) -> None:
    """Wait until the sandbox has converged more often than before, and is as it should be now."""
    watch.until(lambda: len(watch.events("converged")) > before, "it converges again")
    watch.await_state("converged", "web-6")


def migrate_and_return(watch: Running, daemon: Daemon, far: Daemon, file: Path) -> None:
    """Migrate the domain to another host, take its address away there, and migrate it back."""
    move = ("migrate", "--live", NAME, "--migrateuri", f"unix://{file.parent.parent}/migration", "--desturi")
    count = len(watch.events("converged"))
    virsh(*move, far.uri)
    watch.await_state("waiting", "web-6")
    assert f"the domain {NAME} is not running" in watch.about("web-6")["detail"]
    # Its NIC, what marks it as ours, and the agent have come along.
    ran = far.run(sys.executable, "-m", "reconciler", "diff", str(file))
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    (there,) = glob(f"/proc/{far.pid}/root{DomainMachine.SOCKETS.format(NAME)}")
    assert run_command(there, ["ip", "address", "flush", "dev", "eth7"]).status == 0
    ran = far.run("virsh", *move, daemon.uri)
    assert ran.returncode == 0, ran
    converged_again(watch, count)


def test_a_domain_comes_and_goes(watched: Guest, daemon: Daemon, far: Daemon, tap: str, tmp_path: Path) -> None:
    # The other host has a device of the same name.
    assert far.run("sh", "-c", f"ip tuntap add dev {tap} mode tap; ip link set dev {tap} up").returncode == 0
    folder = tmp_path / "manifests"
    folder.mkdir()
    nic = {"name": "eth7", "device": tap, "hwAddr": MACS[6], "mtu": 1500, "addresses": ["192.0.2.7/24"]}
    manifest = {"apiVersion": "reconciler/v1", "sandbox": "web-6", "driver": {"libvirt": {"domain": NAME}}}
    (folder / "web-6.yaml").write_text(dump([manifest | {"interfaces": [nic]}]))
    with watching(folder) as watch:
        watch.await_state("waiting", "web-6")
        assert f"the domain {NAME} is not running" in watch.about("web-6")["detail"]
        virsh("start", NAME)
        converged_again(watch, 0)
        assert is_right(watched)

        daemon.stop()
        try:
            watched.output("ip", "address", "flush", "dev", "eth7")
        finally:
            daemon.start()
        watch.until(lambda: is_right(watched), "it is repaired")

        virsh("reset", NAME)
        watch.until(lambda: not is_right(watched), "it boots")
        watch.until(lambda: is_right(watched), "its agent is found again")

        state = tmp_path / "state"
        virsh("save", NAME, str(state))
        watch.await_state("waiting", "web-6")
        count = len(watch.events("converged"))
        virsh("restore", str(state))
        converged_again(watch, count)
        watch.until(lambda: is_right(watched), "it is as it was")

        migrate_and_return(watch, daemon, far, folder / "web-6.yaml")
        watch.until(lambda: is_right(watched), "it is as it was")
        virsh("destroy", NAME)
        watch.await_state("waiting", "web-6")
    assert "ua-reconciler" not in virsh("dumpxml", "--inactive", NAME)
