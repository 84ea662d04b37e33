"""All of it: a push, etcd, a gate with TLS, and hosts with real watchers that keep real namespaces."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.fleet import keys, records
from reconciler.fleet.records import HostStatus
from tests.conftest import Kernel
from tests.fleet.cluster import Cluster
from tests.fleet.gates import Certificates, Running, running
from tests.fleet.hosts import WatchedHost, flush, has, manifest, namespaces
from tests.fleet.site import Site
from tests.watch.running import until

FIRST, SECOND = "10.1.0.0/16", "10.2.0.0/16"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def gate(cluster: Cluster, certificates: Certificates) -> Iterator[Running]:
    with running(cluster.store(), certificates, leads=True) as found:
        yield found


def host(gate: Running, site: Site, folder: Path, name: str, *ports: int) -> WatchedHost:
    made = gate.certificates.host(name)
    site.fleet("host", "add", "--cert", made.certificate, name)
    return WatchedHost(folder, name, made, gate.certificates.authority, list(ports or (gate.port,)))


def reported(gate: Running, name: str) -> HostStatus | None:
    pair = gate.do(gate.store.read(keys.status(name)))
    return records.decode(HostStatus, pair.value) if pair else None


def test_a_push_reaches_the_kernel_and_all_goes_on_without_the_control_plane(
    gate: Running, site: Site, kernel: Kernel, tmp_path: Path, cluster: Cluster
) -> None:
    one, two = namespaces(kernel, 2)
    site.write({f"a/{one}.yaml": manifest(one, FIRST), f"a/{two}.yaml": manifest(two, FIRST)})
    watched = host(gate, site, tmp_path, "a")
    watched.start()
    try:
        release = site.push("--wait")
        assert has(one, FIRST)
        assert has(two, FIRST)
        found = reported(gate, "a")
        assert found
        assert (found.release, found.reached, found.counts, found.unusual) == (release, True, {"converged": 2}, ())
        # One of them changes; the other one is what it was.
        site.write({f"a/{one}.yaml": manifest(one, SECOND)})
        site.push("--wait", "--allow-delete", "all")
        assert (has(one, SECOND), has(one, FIRST), has(two, FIRST)) == (True, False, True)
        # What moves away ends to be watched here: all that this host has is what the release has.
        for each in cluster.members:
            each.kill()
        gate.stop()
        flush(one)
        until(lambda: has(one, SECOND), "the repair without etcd and gate")
        watched.kill()
        flush(one)
        watched.start()
        until(lambda: has(one, SECOND), "the repair after a restart without etcd and gate")
        flush(two)
        until(lambda: has(two, FIRST), "the next one")
        assert watched.stop() == 0
    finally:
        watched.kill()


def test_a_release_that_fails_is_reported_as_such_and_the_next_one_is_not(
    gate: Running, site: Site, kernel: Kernel, tmp_path: Path
) -> None:
    (one,) = namespaces(kernel, 1)
    # The kernel refuses a gateway that no device reaches.
    wrong = manifest(one, FIRST, more="  - {dest: 10.3.0.0/16, gateway: 192.0.2.99, device: lo}\n")
    site.write({f"a/{one}.yaml": wrong})
    watched = host(gate, site, tmp_path, "a")
    watched.start()
    try:
        code, text = site.run("push", "--wait", str(site.tree))
        assert (code, "failed" in text) == (1, True)
        assert has(one, FIRST)
        found = reported(gate, "a")
        assert found
        assert [(each.sandbox, each.state) for each in found.unusual] == [(one, "failed")]
        site.write({f"a/{one}.yaml": manifest(one, SECOND)})
        site.push("--wait", "--allow-delete", "all")
        found = reported(gate, "a")
        assert found
        assert (found.reached, found.unusual, has(one, SECOND)) == (True, (), True)
    finally:
        watched.kill()


def test_a_host_whose_last_sandbox_has_gone_says_so(gate: Running, site: Site, kernel: Kernel, tmp_path: Path) -> None:
    one, two = namespaces(kernel, 2)
    site.write({f"a/{one}.yaml": manifest(one, FIRST), f"b/{two}.yaml": manifest(two, FIRST)})
    hosts = [host(gate, site, tmp_path, each) for each in "ab"]
    for each in hosts:
        each.start()
    try:
        site.push("--wait")
        # The sandbox moves: the other host gets it after this one has given it up.
        (site.tree / "b" / f"{one}.yaml").write_text((site.tree / "a" / f"{one}.yaml").read_text())
        (site.tree / "a" / f"{one}.yaml").unlink()
        site.commit()
        site.push("--wait", "--allow-delete", "all")
        found = {each: reported(gate, each) for each in "ab"}
        assert found["a"]
        assert found["b"]
        assert (found["a"].reached, found["a"].counts) == (True, {})
        assert (found["b"].reached, found["b"].counts) == (True, {"converged": 2})
        flush(one)
        until(lambda: has(one, FIRST), "the repair by the new host")
    finally:
        for each in hosts:
            each.kill()


def test_a_store_that_was_restored_from_an_older_backup_changes_no_host(
    gate: Running, site: Site, kernel: Kernel, tmp_path: Path
) -> None:
    (one,) = namespaces(kernel, 1)
    site.write({f"a/{one}.yaml": manifest(one, FIRST)})
    watched = host(gate, site, tmp_path, "a")
    watched.start()
    try:
        site.push("--wait")
        backup = gate.do(gate.store.list(keys.ROOT)).pairs
        site.write({f"a/{one}.yaml": manifest(one, SECOND)})
        site.push("--wait", "--allow-delete", "all")
        for each in backup:
            if not each.lease:
                gate.put(each.key, each.value)
        until(
            lambda: (found := reported(gate, "a")) is not None and any("older backup" in each for each in found.alarms),
            "the alarm",
        )
        assert (has(one, SECOND), has(one, FIRST)) == (True, False)
        time.sleep(1.0)
        assert (has(one, SECOND), has(one, FIRST)) == (True, False)
        site.write({f"a/{one}.yaml": manifest(one, SECOND, "10.4.0.0/16")})
        site.push("--wait", "--allow-delete", "all")
        found = reported(gate, "a")
        assert found
        assert (found.reached, found.alarms, has(one, "10.4.0.0/16")) == (True, (), True)
    finally:
        watched.kill()
