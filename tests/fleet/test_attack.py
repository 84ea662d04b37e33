"""A host that has been taken over attacks with its own certificate: the gate, and the ports of etcd."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from reconciler.fleet import blobs, keys, records
from reconciler.fleet.gate.peers import CONNECTIONS
from reconciler.fleet.records import HostStatus
from tests.fleet.cluster import Cluster
from tests.fleet.flood import KINDS
from tests.fleet.gates import Certificates, Running, running
from tests.watch.running import until

_FILE = b"a: 1\n"
# Requests of the other host during an attack, and the seconds that the attack goes on.
_COUNT, _SECONDS = 8, 60.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def gate(cluster: Cluster, certificates: Certificates) -> Iterator[Running]:
    with running(cluster.store(), certificates) as found:
        for name in ("evil", "good"):
            found.add_host(name)
            found.want(name, "r1", {f"{name}.yaml": _FILE + name.encode()})
        until(lambda: all(found.ask(each, "/v1/desired?have=")[0] == 200 for each in ("evil", "good")), "the gate")
        yield found


@contextmanager
def attacking(gate: Running, kind: str) -> Iterator[None]:
    """Attack during the block."""
    made = gate.certificates.host("evil")
    words = [str(gate.port), gate.certificates.authority, made.certificate, made.key, str(_SECONDS)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fleet.flood", kind, *words],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == b"begun\n"
        yield
        assert process.poll() is None, "the attack has ended too soon"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def work(gate: Running) -> list[float]:
    """Do what the agent of the other host does; return the seconds of each request."""
    took = []
    digest = blobs.digest(_FILE + b"good")
    client = gate.client("good", 30)
    for number in range(_COUNT):
        begin = time.monotonic()
        client.request("GET", f"/v1/blob/{digest}" if number % 2 else "/v1/desired?have=")
        answer = client.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        took.append(time.monotonic() - begin)
    client.close()
    return took


def others(gate: Running) -> dict[str, bytes]:
    """Return all in the store that an attacker may not change."""
    found = gate.do(gate.store.list(keys.ROOT)).pairs
    return {each.key: each.value for each in found if "/alive/" not in each.key and each.key != keys.status("evil")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_flood_of_one_host_leaves_the_others_their_gate(gate: Running, kind: str) -> None:
    before = others(gate)
    with attacking(gate, kind):
        work(gate)
        assert gate.gate.peers.connections <= CONNECTIONS + 1
        # New connections of others are served as well.
        assert gate.ask("good", "/v1/desired?have=")[0] == 200
    assert others(gate) == before
    pair = gate.do(gate.store.read(keys.status("evil")))
    assert pair is None or records.decode(HostStatus, pair.value).counts == {"failed": 1}


def test_a_revoked_host_that_attacks_is_out_and_stays_out(gate: Running) -> None:
    with attacking(gate, "requests"):
        until(lambda: gate.gate.peers.is_connected("evil"), "the attack")
        gate.add_host("evil", fenced=True)
        until(lambda: not gate.gate.peers.is_connected("evil"), "its end", longest=0.05)
        work(gate)
        assert not gate.gate.peers.is_connected("evil")


def test_etcd_does_not_know_the_certificates_of_hosts(gate: Running, cluster: Cluster) -> None:
    made = gate.certificates.host("evil")
    authority = cluster.authority.file.read_bytes()
    for url in (*cluster.urls, *(each.peer for each in cluster.members)):
        name, _, port = url.removeprefix("https://").rpartition(":")
        context = ssl.create_default_context(cadata=authority.decode())
        context.load_cert_chain(made.certificate, made.key)
        client = http.client.HTTPSConnection(name, int(port), context=context, timeout=20)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _ask(client)
        client.close()
    credentials = grpc.ssl_channel_credentials(
        authority, Path(made.key).read_bytes(), Path(made.certificate).read_bytes()
    )
    for url in cluster.urls:
        with grpc.secure_channel(url.removeprefix("https://"), credentials) as channel:
            for method in ("KV/Range", "KV/Txn", "Lease/LeaseGrant", "Auth/AuthDisable", "Maintenance/Alarm"):
                with pytest.raises(grpc.RpcError) as raised:
                    channel.unary_unary(f"/etcdserverpb.{method}")(b"", timeout=10)
                assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


def _ask(client: http.client.HTTPSConnection) -> None:
    client.request("GET", "/version")
    client.getresponse()
