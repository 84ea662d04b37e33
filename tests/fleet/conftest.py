"""The cluster of the fleet's tests: one for all of them, as they run in one process. Each test finds it empty."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.fleet import keys
from reconciler.fleet.store import Delete
from tests.fleet.cluster import Cluster, program
from tests.fleet.site import Site


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = program()
    if found is None:
        pytest.skip("needs etcd: `make setup` gets it")
    made = Cluster(found, tmp_path_factory.mktemp("etcd"))
    try:
        made.start()
        yield made
    finally:
        made.end()


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """Yield the cluster with all of its members, and nothing below our keys."""
    _cluster.start()
    asyncio.run(_clear(_cluster))
    yield _cluster
    _cluster.start()


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return a repository, whose commands find the cluster."""
    certificate, key = cluster.client
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", ",".join(cluster.urls))
    monkeypatch.setenv("ETCDCTL_CACERT", str(cluster.authority.file))
    monkeypatch.setenv("ETCDCTL_CERT", str(certificate))
    monkeypatch.setenv("ETCDCTL_KEY", str(key))
    return Site(tmp_path, capsys)


async def _clear(cluster: Cluster) -> None:
    store = cluster.store(patience=30)
    found = (await store.list(keys.ROOT, keys_only=True)).pairs
    for start in range(0, len(found), 100):
        await store.commit([Delete(each.key) for each in found[start : start + 100]])
    await store.close()
