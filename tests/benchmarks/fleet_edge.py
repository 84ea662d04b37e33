"""Measures the edge of a fleet: `python -m tests.benchmarks.fleet_edge`, as root, with etcd (`make setup`).

A real cluster of three members with mTLS, a gate, and a host with a real watcher and 20 namespaces:

- a push of one manifest of 20, until etcd has the report that it is reached;
- the repair of drift while all of etcd and the gate are dead, and after a kill of all processes of the host;
- what another host waits for an answer while one host attacks the gate, in each way of `tests.fleet.flood`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.fleet import blobs, keys, records
from reconciler.fleet.records import HostStatus
from tests.conftest import Kernel
from tests.fleet.cluster import Cluster, program
from tests.fleet.flood import KINDS
from tests.fleet.gates import Certificates, Running, running
from tests.fleet.hosts import COMMAND, WatchedHost, flush, has, manifest, namespaces

_SANDBOXES, _PUSHES, _REPAIRS, _REQUESTS = 20, 15, 5, 200
_FILE = b"a: 1\n"


def _until(condition: Callable[[], object], seconds: float = 60.0) -> float:
    """Return after how many seconds a condition holds."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() > begin + seconds:
            raise TimeoutError
        time.sleep(0.01)
    return time.monotonic() - begin


def _shown(words: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    print(
        f"{words:58} p50 {statistics.median(ordered):6.3f} s   p95 {p95:6.3f} s   worst {ordered[-1]:6.3f} s",
        flush=True,
    )


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _push(tree: Path) -> None:
    git = ("git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@example.com")
    _run(*git, "add", "--all")
    _run(*git, "commit", "--quiet", "-m", "a change")
    _run(*COMMAND, "fleet", "push", "--allow-delete", "all", str(tree))


def _reached(gate: Running) -> str:
    pair = gate.do(gate.store.read(keys.status("a")))
    found = records.decode(HostStatus, pair.value) if pair else None
    return found.release if found and found.reached else ""


def _measure_pushes(gate: Running, tree: Path, names: list[str]) -> None:
    took = []
    for number in range(_PUSHES):
        before = _reached(gate)
        (tree / "a" / f"{names[number]}.yaml").write_text(manifest(names[number], f"10.{number + 20}.0.0/16"))
        _push(tree)
        # From the moment at which the rollout has the release, which is the end of the push.
        took.append(_await_another(gate, before))
        # A host reports at most every 2 s.
        time.sleep(2.5)
    _shown("one of 20 sandboxes: end of the push to reached in etcd", took)


def _await_another(gate: Running, before: str) -> float:
    return _until(lambda: _reached(gate) not in {"", before})


def _measure_repairs(cluster: Cluster, gate: Running, host: WatchedHost, names: list[str]) -> None:
    for each in cluster.members:
        each.kill()
    gate.stop()
    took = []
    # Each another one: what is changed again and again is repaired later and later.
    for name in names[-_REPAIRS:]:
        flush(name)
        took.append(_await_route(name))
    _shown("control plane dead: drift repaired", took)
    took = []
    for name in names[-_REPAIRS:]:
        host.kill()
        flush(name)
        host.start()
        took.append(_await_route(name))
    _shown("control plane dead, processes restarted: drift repaired", took)


def _await_route(name: str) -> float:
    return _until(lambda: has(name))


@contextmanager
def _attacking(gate: Running, kind: str) -> Iterator[None]:
    made = gate.certificates.host("evil")
    words = [str(gate.port), gate.certificates.authority, made.certificate, made.key, "60"]
    process = subprocess.Popen([sys.executable, "-m", "tests.fleet.flood", kind, *words], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    time.sleep(1.0)
    yield
    process.kill()
    process.wait()
    process.stdout.close()


def _measure_attacks(gate: Running) -> None:
    for name in ("evil", "good"):
        gate.add_host(name)
        gate.want(name, "r1", {"a.yaml": _FILE})
    _until(lambda: gate.ask("good", "/v1/desired?have=")[0] == 200)
    _shown("no attack: another host's requests", _requests(gate))
    for kind in KINDS:
        with _attacking(gate, kind):
            _shown(f"attack by {kind}: another host's requests", _requests(gate))


def _requests(gate: Running) -> list[float]:
    took = []
    client = gate.client("good")
    for number in range(_REQUESTS):
        begin = time.monotonic()
        client.request("GET", f"/v1/blob/{blobs.digest(_FILE)}" if number % 2 else "/v1/desired?have=")
        answer = client.getresponse()
        answer.read()
        assert answer.status == 200
        took.append(time.monotonic() - begin)
    client.close()
    return took


def main() -> None:
    """Measure, and print each figure as soon as it is known."""
    found, kernel = program(), Kernel()
    assert found, "needs etcd: `make setup` gets it"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "etcd").mkdir()
        cluster = Cluster(found, folder / "etcd")
        host: WatchedHost | None = None
        try:
            cluster.start()
            certificate, key = map(str, cluster.client)
            os.environ |= {"ETCDCTL_ENDPOINTS": ",".join(cluster.urls), "ETCDCTL_CACERT": str(cluster.authority.file)}
            os.environ |= {"ETCDCTL_CERT": certificate, "ETCDCTL_KEY": key}
            with running(cluster.store(), Certificates(folder / "ca"), leads=True) as gate:
                _measure_attacks(gate)
                names = namespaces(kernel, _SANDBOXES)
                made = gate.certificates.host("a")
                _run(*COMMAND, "fleet", "host", "add", "--cert", made.certificate, "a")
                tree = folder / "tree"
                _run("git", "init", "--quiet", str(tree))
                (tree / "a").mkdir()
                for each in names:
                    (tree / "a" / f"{each}.yaml").write_text(manifest(each, "10.1.0.0/16"))
                host = WatchedHost(folder, "a", made, gate.certificates.authority, [gate.port])
                host.start()
                _push(tree)
                _until(lambda: _reached(gate))
                _measure_pushes(gate, tree, names)
                _measure_repairs(cluster, gate, host, names)
        finally:
            if host:
                host.kill()
            cluster.end()
            kernel.remove()


if __name__ == "__main__":
    main()
