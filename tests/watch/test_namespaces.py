"""Changes in namespaces are told with the sandbox they are of, and none is kept alive for it."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.drivers.reach import open_namespace
from reconciler.model.sandbox import NetnsAddress
from reconciler.watch.namespaces import HOST, NamespaceSocket, NamespaceTracker
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.watch.running import is_on_host, until


@pytest.fixture
def channel(root: None) -> Iterator[NamespaceSocket]:
    found = NamespaceSocket()
    yield found
    found.close()


def file_of(name: str) -> NetnsAddress:
    return NetnsAddress(name=name)


def open_file(address: NetnsAddress) -> int:
    return open_namespace(address, POLICY)


def heard(channel: NamespaceSocket, tracker: NamespaceTracker, name: str | int) -> bool:
    """Wait until a change is told of this one; others on this host may be told of as well."""
    if select.select([channel], [], [], 30)[0]:
        return name in set(tracker.read_changes())
    return False


def test_a_change_is_told_of_the_sandbox_it_is_in(kernel: Kernel, channel: NamespaceSocket) -> None:
    one, other = kernel.namespace(), kernel.namespace()
    tracker = NamespaceTracker(channel, open_file)
    assert tracker.refresh({"a": file_of(one), "b": file_of(other)}) == ["a", "b"]
    assert tracker.refresh({"a": file_of(one), "b": file_of(other)}) == []
    list(tracker.read_changes())
    ip("link", "set", "lo", "up", namespace=other)
    until(lambda: heard(channel, tracker, "b"), "b")
    assert "a" not in set(tracker.read_changes())
    tracker.refresh({"a": file_of(one)})
    ip("link", "set", "lo", "down", namespace=other)
    ip("link", "set", "lo", "up", namespace=one)
    seen: set[str | int] = set()

    def told() -> bool:
        seen.update(tracker.read_changes())
        return "a" in seen

    until(told, "a")
    assert "b" not in seen


MAC = "02:42:20:6f:a3:f1"
EVENTS = [
    "rule add priority 100 table 100",
    "rule del priority 100 table 100",
    "-6 rule add priority 100 table 100 protocol 200",
    "-6 rule del priority 100",
    f"neigh add 192.0.2.1 lladdr {MAC} dev e0 nud permanent protocol 200",
    "neigh change 192.0.2.1 dev e0 nud stale",
    "neigh del 192.0.2.1 dev e0",
    f"neigh add 2001:db8::1 lladdr {MAC} dev e0 nud permanent protocol 200",
    # What the kernel derives, and what it changes of an address.
    "address add 192.0.2.77/24 dev e0",
    "address change 192.0.2.77/24 dev e0 valid_lft 600 preferred_lft 500",
    "route del local 192.0.2.77 table local",
    "route del 192.0.2.0/24 dev e0",
    "link set e0 arp off",
    "link set e0 down",
]
LEARNED = [
    f"neigh add 192.0.2.2 lladdr {MAC} dev e0 nud reachable",
    "neigh change 192.0.2.2 dev e0 nud delay",
    f"neigh add 2001:db8::2 lladdr {MAC} dev e0 nud stale router",
    "neigh del 192.0.2.2 dev e0",
    f"neigh add 192.0.2.3 lladdr {MAC} dev e0 nud permanent",
]


def test_rules_and_neighbours_of_ours_are_told_and_what_is_learned_is_not(
    kernel: Kernel, channel: NamespaceSocket
) -> None:
    one, other = kernel.namespace(), kernel.namespace()
    ip("link", "add", "e0", "type", "veth", "peer", "name", "e1", namespace=one)
    ip("link", "set", "e0", "up", namespace=one)
    tracker = NamespaceTracker(channel, open_file)
    files = {"a": file_of(one), "b": file_of(other)}
    tracker.refresh(files)
    seen: set[str | int] = set()

    def told(name: str) -> bool:
        seen.update(tracker.read_changes())
        tracker.refresh(files)
        return name in seen

    def settle() -> None:
        """Wait until all that came before is told, by another change."""
        seen.clear()
        for state in ("up", "down"):
            ip("link", "set", "lo", state, namespace=other)
        until(lambda: told("b"), "b")

    # The kernel is done with the new link, whose IPv6 address comes later.
    until(lambda: "tentative" not in ip("-6", "address", "show", "dev", "e0", namespace=one), "address")
    for event in LEARNED:
        settle()
        list(tracker.read_changes())
        seen.clear()
        ip(*event.split(), namespace=one)
        settle()
        assert "a" not in seen, event
    for event in EVENTS:
        settle()
        seen.clear()
        ip(*event.split(), namespace=one)
        until(lambda: told("a"), event)


@pytest.mark.parametrize("name", ["net.ipv4.ip_forward", "net.ipv4.conf.lo.rp_filter", "net.ipv6.conf.all.forwarding"])
def test_a_sysctl_is_told(kernel: Kernel, channel: NamespaceSocket, name: str) -> None:
    one = kernel.namespace()
    tracker = NamespaceTracker(channel, open_file)
    tracker.refresh({"a": file_of(one)})
    list(tracker.read_changes())
    ip("netns", "exec", one, "sysctl", "-qw", f"{name}=1")
    until(lambda: heard(channel, tracker, "a"), name)


def test_a_namespace_that_comes_goes_or_is_another_one_has_changed(kernel: Kernel, channel: NamespaceSocket) -> None:
    name = kernel.namespace()
    files = {"a": file_of(name), "b": file_of(f"{name}x")}
    tracker = NamespaceTracker(channel, open_file)
    assert tracker.refresh(files) == ["a", "b"]
    ip("netns", "delete", name)
    ip("netns", "add", name)
    list(tracker.read_changes())
    assert tracker.refresh(files) == ["a"]
    ip("netns", "delete", name)
    assert tracker.refresh(files) == ["a"]
    assert tracker.refresh(files) == []
    ip("netns", "add", name)
    assert tracker.refresh(files) == ["a"]


def test_a_namespace_with_the_inode_of_the_one_before_is_another_one(kernel: Kernel, channel: NamespaceSocket) -> None:
    name = kernel.namespace()
    files = {"a": file_of(name)}
    tracker = NamespaceTracker(channel, open_file)
    tracker.refresh(files)
    list(tracker.read_changes())
    first = os.stat(file_of(name).file).st_ino
    for _ in range(20):
        ip("netns", "delete", name)
        # The kernel gives the number again as soon as it is free.
        time.sleep(0.03)
        ip("netns", "add", name)
        list(tracker.read_changes())
        assert tracker.refresh(files) == ["a"]
        assert tracker.refresh(files) == []
        if os.stat(file_of(name).file).st_ino == first:
            # Another process may have got the number before.
            break


def test_the_namespace_of_a_process_changes_only_with_the_process(kernel: Kernel, channel: NamespaceSocket) -> None:
    """Nothing holds the inode of `/proc/PID/ns/net`: each look finds another ctime."""
    name = kernel.namespace()
    with subprocess.Popen(["ip", "netns", "exec", name, "sleep", "60"]) as process:
        file = f"/proc/{process.pid}/ns/net"
        until(lambda: os.stat(file).st_ino == os.stat(file_of(name).file).st_ino, "the process is in the namespace")
        tracker = NamespaceTracker(channel, open_file)
        address = NetnsAddress(path=file)
        assert tracker.refresh({"a": address}) == ["a"]
        found = []
        for _ in range(20):
            time.sleep(0.02)
            list(tracker.read_changes())
            found += tracker.refresh({"a": address})
        # The number may have been that of another process's namespace, whose end was still to be read.
        assert len(found) < 3
        process.kill()
    assert tracker.refresh({"a": address}) == ["a"]
    assert tracker.refresh({"a": address}) == []


def test_a_namespace_that_could_not_be_opened_is_not_taken_for_absent(kernel: Kernel, channel: NamespaceSocket) -> None:
    name = kernel.namespace()
    files = {"a": file_of(name), "b": file_of(f"{name}x")}
    tracker = NamespaceTracker(channel, open_file)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert tracker.refresh(files) == ["b"]
        assert tracker.unheard == {"a": f"netns {name}: /run/netns/{name}: Too many open files"}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (tracker.refresh(files), tracker.unheard) == (["a"], {})
    ip("link", "set", "lo", "up", namespace=name)
    until(lambda: heard(channel, tracker, "a"), "a")
    ip("netns", "delete", name)
    ip("netns", "add", name)
    list(tracker.read_changes())
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert tracker.refresh(files) == []
        assert set(tracker.unheard) == {"a"}
        assert tracker.refresh({"b": files["b"]}) == []
        assert tracker.unheard == {}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_numbers_that_other_namespaces_give_are_not_ours(kernel: Kernel, channel: NamespaceSocket) -> None:
    names = [kernel.namespace() for _ in range(3)]
    files = {name: file_of(name) for name in names}
    tracker = NamespaceTracker(channel, open_file)
    tracker.refresh(files)
    list(tracker.read_changes())
    # Each gives the others numbers, those that are numbers of ours, and they are destroyed.
    for number in range(40):
        other = f"{names[0]}o{number}"
        ip("netns", "add", other)
        try:
            ip("netns", "set", other, str(number), namespace=names[0])
        finally:
            ip("netns", "delete", other)
    time.sleep(0.3)
    list(tracker.read_changes())
    assert tracker.refresh(files) == []


def test_nothing_is_kept_alive(kernel: Kernel, channel: NamespaceSocket) -> None:
    name = kernel.namespace()
    device, peer = kernel.veth()
    NamespaceTracker(channel, open_file).refresh({"a": file_of(name)})
    ip("link", "set", device, "netns", name)
    ip("netns", "delete", name)
    until(lambda: not is_on_host(peer), "gone with its namespace")
    ip("netns", "add", name)


@pytest.mark.parametrize("kind", ["none", "file", "folder", "pipe"])
def test_what_is_no_namespace_has_no_number(kind: str, tmp_path: Path, channel: NamespaceSocket) -> None:
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "file":
        path.write_text("x")
    elif kind == "folder":
        path.mkdir()
    tracker = NamespaceTracker(channel, open_file)
    tracker.refresh({"a": NetnsAddress(path=str(path))})
    assert "is not a network namespace" in tracker.unheard.get("a", "") or not path.exists()


def test_a_device_that_comes_to_the_host_is_told(kernel: Kernel, channel: NamespaceSocket) -> None:
    tracker = NamespaceTracker(channel, open_file)
    kernel.tap()
    until(lambda: heard(channel, tracker, HOST), "host")


def test_what_is_lost_means_all(kernel: Kernel, channel: NamespaceSocket) -> None:
    name = kernel.namespace()
    tracker = NamespaceTracker(channel, open_file)
    tracker.refresh({"a": file_of(name)})
    ip("link", "set", "lo", "up", namespace=name)
    lines = "".join(f"route add blackhole 10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32\n" for n in range(60_000))
    batch = Path(f"/tmp/{name}")
    batch.write_text(lines)
    try:
        ip("-batch", str(batch), namespace=name)
        list(tracker.read_changes())
        assert tracker.refresh({"a": file_of(name)}) == ["a"]
        # And afterwards it goes on.
        ip("link", "set", "lo", "down", namespace=name)
        until(lambda: heard(channel, tracker, "a"), "a")
    finally:
        batch.unlink()


def test_a_name_that_is_a_link_is_followed_each_time(kernel: Kernel, channel: NamespaceSocket, tmp_path: Path) -> None:
    one, other = kernel.namespace(), kernel.namespace()
    elsewhere, link = tmp_path / "current", Path(f"/run/netns/{kernel.prefix}link")
    elsewhere.symlink_to(f"/run/netns/{one}")
    link.symlink_to(elsewhere)
    try:
        tracker = NamespaceTracker(channel, open_file)
        addresses = {"a": file_of(link.name), "b": file_of(one)}
        # The second time for what changed just before the first one.
        assert [tracker.refresh(addresses) for _ in range(3)] == [["a", "b"], [], []]
        # Nothing is mounted, and nothing changes in the folder of names.
        elsewhere.unlink()
        elsewhere.symlink_to(f"/run/netns/{other}")
        assert tracker.refresh(addresses) == ["a"]
        tracker.close()
    finally:
        link.unlink()
