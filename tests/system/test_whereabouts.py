"""A namespace is its device and inode, whatever leads to it; and a pid means the process that had it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.drivers import connect
from reconciler.drivers.claims import Claims
from reconciler.errors import RefusedError
from reconciler.manifest.load import load
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.processes import process_in

HEAD = "apiVersion: reconciler/v1\nsandbox: {name}\ndriver: {{netns: {{{address}}}}}\n"
ROUTES = "routes: [{{dest: {dest}, type: blackhole}}]\n"
OWN = "is the namespace that reconciler itself runs in, not one of a sandbox; correct the driver of the manifest"
REPLACED = (
    "belongs to another process now, which began after the manifest was written; "
    "write the pid of the sandbox's process, and if it is this one, write the file anew"
)


def text(name: str, address: str, dest: str = "10.8.0.0/16") -> str:
    return HEAD.format(name=name, address=address) + ROUTES.format(dest=dest)


@contextmanager
def names_of(namespace: str, folder: Path) -> Iterator[dict[str, str]]:
    """Yield what a manifest can write for a namespace, each by its kind."""
    link, mounted, shared = folder / "link", folder / "mounted", folder / "shared"
    link.symlink_to(f"/run/netns/{namespace}")
    shared.symlink_to("/run/netns")
    mounted.touch()
    with process_in(namespace) as pid, process_in(namespace) as other:
        subprocess.run(["mount", "--bind", f"/run/netns/{namespace}", mounted], check=True)
        try:
            yield {
                "name": f"name: {namespace}",
                "path": f"path: /run/netns/../netns/{namespace}",
                "path by a link of the system": f"path: /var/run/netns/{namespace}",
                "path by a linked folder": f"path: {shared}/{namespace}",
                "link": f"path: {link}",
                "bind mount": f"path: {mounted}",
                "pid": f"pid: {pid}",
                "pid of another process": f"pid: {other}",
                "path of a process": f"path: /proc/{pid}/ns/net",
            }
        finally:
            subprocess.run(["umount", mounted], check=True)


def test_two_manifests_of_one_namespace_are_refused(
    kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    namespace = kernel.namespace()
    with names_of(namespace, tmp_path) as names:
        for one, other in combinations(names, 2):
            first.write_text(text("a", names[one]))
            second.write_text(text("b", names[other], "10.9.0.0/16"))
            code = main(["apply", str(first), str(second)])
            told = capsys.readouterr().err.splitlines()
            assert (one, other, code) == (one, other, 2)
            assert told[0].startswith(f"{second}:3:9: driver: /")
            assert " is the namespace of sandbox a already" in told[0]
            assert told[0].endswith(f", in {first}")
    assert ip("route", "show", "table", "all", "proto", "200", namespace=namespace) == ""


def test_a_namespace_that_does_not_exist_is_known_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/run/netns")
    file = tmp_path / "a.yaml"
    file.write_text(text("a", "name: r-none") + "---\n" + text("b", f"path: {tmp_path}/link/r-none"))
    assert main(["validate", str(file)]) == 2
    file.write_text(text("a", "name: r-none") + "---\n" + text("b", f"path: {tmp_path}/link/r-other"))
    assert main(["validate", str(file)]) == 0


def test_one_that_becomes_the_same_later_is_refused_when_it_is_opened(kernel: Kernel, tmp_path: Path) -> None:
    namespace, other = kernel.namespace(), kernel.namespace()
    link, file = tmp_path / "link", tmp_path / "a.yaml"
    file.write_text(text("a", f"name: {namespace}") + "---\n" + text("b", f"path: {link}"))
    a, b = (each.sandbox for each in load([str(file)]))
    claims = Claims()
    with connect(a, POLICY) as driver:
        claims.claim(a, driver)
    link.symlink_to(f"/run/netns/{namespace}")
    with connect(b, POLICY) as driver:
        with pytest.raises(RefusedError) as caught:
            claims.claim(b, driver)
        assert (str(caught.value), caught.value.path) == (
            (
                f"netns {link} is the same as netns {namespace}, which sandbox a has already; "
                "delete one of the two manifests, or correct its driver"
            ),
            ("driver",),
        )
        claims.keep({"b"})
        claims.claim(b, driver)
    with connect(a, POLICY) as driver, pytest.raises(RefusedError):
        claims.claim(a, driver)
    # The link leads elsewhere now: what it led to is free.
    link.unlink()
    link.symlink_to(f"/run/netns/{other}")
    with connect(a, POLICY) as driver:
        claims.claim(a, driver)
    with connect(b, POLICY) as driver:
        claims.claim(b, driver)


@pytest.mark.parametrize("command", ["diff", "apply", "show"])
def test_our_own_namespace_is_refused(
    command: str, kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link, file = tmp_path / "link", tmp_path / "a.yaml"
    link.symlink_to("/proc/self/ns/net")
    with ExitStack() as stack:
        sleeper = subprocess.Popen(["sleep", "1000"])
        stack.callback(sleeper.wait)
        stack.callback(sleeper.kill)
        for address in (f"pid: {os.getpid()}", f"pid: {sleeper.pid}", "path: /proc/self/ns/net", f"path: {link}"):
            file.write_text(text("a", address))
            assert main([command, str(file)]) == 3
            (line,) = capsys.readouterr().err.splitlines()
            name = address.replace("pid: ", "of pid ").replace("path: ", "")
            assert line == f"a: refused: {file}:3:9: driver: netns {name} {OWN}"
    # Within a sandbox, that is the own one.
    namespace = kernel.namespace()
    file.write_text(text("a", f"name: {namespace}"))
    within = ["ip", "netns", "exec", namespace, sys.executable, "-m", "reconciler", command, str(file)]
    assert subprocess.run(within, check=False, capture_output=True).returncode == 3
    assert main(["diff", str(file)]) == 1


@pytest.mark.parametrize("command", ["diff", "apply", "show"])
def test_a_pid_that_another_process_has_now_is_refused(
    command: str, kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace, other = kernel.namespace(), kernel.namespace()
    file = tmp_path / "a.yaml"
    with process_in(namespace) as pid:
        file.write_text(text("a", f"pid: {pid}"))
        assert main(["apply", str(file)]) == 0
    assert main([command, str(file)]) == 2
    capsys.readouterr()
    time.sleep(0.1)
    with process_in(other, pid):
        assert main([command, str(file)]) == 3
        assert capsys.readouterr().err == f"a: refused: {file}:3:9: driver: pid {pid} {REPLACED}\n"
        assert ip("route", "show", "table", "all", "proto", "200", namespace=other) == ""
        # Who writes the manifest now means the process that has the pid now.
        file.touch()
        assert main(["apply", str(file)]) == 0
    assert ip("route", "show", "proto", "200", namespace=other).split() == ["blackhole", "10.8.0.0/16"]


def test_a_pid_that_is_replaced_after_the_manifest_was_read(kernel: Kernel, tmp_path: Path) -> None:
    """Whatever the clock of the host shows meanwhile."""
    namespace, other = kernel.namespace(), kernel.namespace()
    file = tmp_path / "a.yaml"
    with process_in(namespace) as pid:
        file.write_text(text("a", f"pid: {pid}"))
        os.utime(file, (time.time() + 3600,) * 2)
        (manifest,) = load([str(file)])
        with connect(manifest.sandbox, POLICY):
            # The kernel tells two starts apart if they are in different ticks, which are 0.01 s.
            time.sleep(0.02)
    with process_in(other, pid), pytest.raises(RefusedError), connect(manifest.sandbox, POLICY):
        pass


def test_a_pid_on_standard_input_is_the_process_of_now(
    kernel: Kernel, capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    namespace = kernel.namespace()
    with process_in(namespace) as pid:
        words = [sys.executable, "-m", "reconciler", "apply", "-"]
        ran = subprocess.run(words, input=text("a", f"pid: {pid}"), capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout.partition(" in ")[0]) == (0, "a: applied 1 operation")


def test_a_device_in_another_sandbox_is_said_to_be_there(
    kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    namespace, other, device = kernel.namespace(), kernel.namespace(), kernel.tap()
    nic = f"interfaces: [{{name: eth0, device: {device}, hwAddr: '02:00:00:00:00:01', mtu: 1500}}]\n"
    first.write_text(HEAD.format(name="a", address=f"name: {namespace}") + nic)
    second.write_text(HEAD.format(name="b", address=f"name: {other}") + nic)
    assert main(["apply", str(first)]) == 0
    capsys.readouterr()
    for command in ("diff", "apply"):
        assert main([command, str(second)]) == 2
        assert capsys.readouterr().err == (
            f"b: {second}:4:35: interfaces[0].device: {device} is in another sandbox, netns {namespace} (eth0 there); "
            "remove it from the manifest of that sandbox first\n"
        )
