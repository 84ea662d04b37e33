"""Many hosts at once, which speak the protocol of the agent: each has what its folder says, and etcd knows it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from reconciler.fleet import blobs, keys
from reconciler.fleet.gate.peers import Peer
from tests.fleet.cluster import Cluster
from tests.fleet.gates import DEADLINE, Certificates, Running, running
from tests.fleet.simulated import Fleet, Host, simulate
from tests.fleet.site import Site, manifest
from tests.watch.running import until

_HOSTS, _SANDBOXES = 30, 5


class Simulation:
    """Hosts that run in a thread of their own."""

    def __init__(self, certificates: Certificates, names: list[str], ports: list[int]) -> None:
        fleet = Fleet(certificates.authority, f"{certificates.folder}/hosts")
        self.hosts: dict[str, Host] = {}
        ready, self._loop = threading.Event(), asyncio.new_event_loop()

        async def run() -> None:
            self.hosts = {each.name: each for each in fleet.hosts(names, ports)}
            ready.set()
            await simulate([*self.hosts.values()])

        self._task = self._loop.create_task(run())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert ready.wait(DEADLINE)

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.wait({self._task}))
        self._loop.close()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def gates(cluster: Cluster, certificates: Certificates) -> Iterator[list[Running]]:
    with running(cluster.store(), certificates, leads=True) as one, running(cluster.store(), certificates) as two:
        yield [one, two]


def tree(site: Site) -> dict[str, dict[str, str]]:
    """Return host → path → digest of each file of the repository."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted(site.tree.glob("host-*/**/*.yaml")):
        host, path = file.relative_to(site.tree).as_posix().split("/", 1)
        found.setdefault(host, {})[path] = blobs.digest(file.read_bytes())
    return found


def shown(site: Site) -> dict[str, tuple[str, str, dict[str, int]]]:
    """Return host → its state, release and counts, of `fleet status`."""
    _, text = site.run("status", "-o", "json")
    return {each["host"]: (each["state"], each["release"], each["counts"]) for each in json.loads(text)["hosts"]}


def check(site: Site, simulation: Simulation, *options: str) -> None:
    """Push, and look at what the hosts have, and at what etcd says that they have."""
    release = site.push("--wait", "--allow-delete", "all", *options)
    wanted = tree(site)
    assert {name: each.files for name, each in simulation.hosts.items()} == wanted
    assert {each.desired and each.desired.release for each in simulation.hosts.values()} == {release}
    counts = {name: {"converged": len(files)} for name, files in wanted.items()}
    # Who is connected is written a moment after the connection.
    until(lambda: {each for each, _, _ in shown(site).values()} == {"reached"}, "all are connected")
    assert shown(site) == {name: ("reached", release, counts[name]) for name in wanted}


def gate_of(gates: list[Running], host: str) -> str:
    """Return with which gate etcd says that a host is connected."""
    pair = gates[0].do(gates[0].store.read(keys.alive(host)))
    return pair.value.decode() if pair else ""


@pytest.mark.parametrize("leaves", [False, True])
def test_a_host_that_was_at_two_gates_is_connected_when_it_is_at_one(gates: list[Running], *, leaves: bool) -> None:
    gates[0].add_host("host-1")
    until(lambda: all(not each.gate.peers.refusal(peer(each)) for each in gates), "both know the host")
    names = [each.gate.name for each in gates]
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(each.client("host-1"))) for each in gates]
        for client, name in zip(clients, names, strict=True):
            # A connection without a request has to go after some seconds. This one is answered once there is news.
            client.request("GET", "/v1/desired?have=")
            until(lambda: gate_of(gates, "host-1") == name, "the gate has written it")  # noqa: B023
        if leaves:
            gates[1].stop()
        clients[1].close()
        until(lambda: gate_of(gates, "host-1") == names[0], "the other gate has written it")
        clients[0].close()
        until(lambda: gate_of(gates, "host-1") == "", "it has left")


def peer(gate: Running) -> Peer:
    return Peer("host-1", gate.certificates.host("host-1").fingerprint)


def test_each_of_many_hosts_gets_what_its_folder_says(
    gates: list[Running], certificates: Certificates, site: Site
) -> None:
    names = [f"host-{number}" for number in range(_HOSTS)]
    for each in names:
        gates[0].add_host(each)
    sandboxes = {each: [f"{each}-{number}" for number in range(_SANDBOXES)] for each in names}
    site.write({f"{host}/some/{each}.yaml": manifest(each) for host, found in sandboxes.items() for each in found})
    simulation = Simulation(certificates, names, [each.port for each in gates])
    try:
        until(lambda: sum(each.gate.peers.hosts for each in gates) >= _HOSTS, "all are connected")
        check(site, simulation)
        # One manifest of each, all at once.
        site.write({f"{host}/some/{found[0]}.yaml": manifest(found[0], "new") for host, found in sandboxes.items()})
        check(site, simulation, "--waves", "100%")
        # A gate leaves, and all are at the other one. Each loses a manifest, and one has more than are fetched at once.
        gates[1].stop()
        for host, found in sandboxes.items():
            (site.tree / host / "some" / f"{found[0]}.yaml").unlink()
        more = [f"more-{number}" for number in range(2 * blobs.AT_ONCE + 1)]
        site.write({f"host-7/more/{each}.yaml": manifest(each) for each in more})
        check(site, simulation)
        assert [each.faults for each in simulation.hosts.values() if each.faults] == []
    finally:
        simulation.end()
