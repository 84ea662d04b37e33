"""What the leader removes: nothing that a release, a host or a push still needs."""

from __future__ import annotations

from reconciler.fleet import blobs, keys
from reconciler.fleet.records import Desired, Plan, Release, decode, encode
from reconciler.fleet.store import Compare, Put, Store
from reconciler.fleet.tidy import tidy
from tests.fleet.cluster import Cluster
from tests.fleet.site import Site, manifest
from tests.fleet.test_push import on, snapshot


def tidied(cluster: Cluster) -> dict[str, bytes]:
    """Let a leader tidy; return all that is in the store then, but the leader's own key."""

    async def work(store: Store) -> None:
        outcome = await store.commit([Put(keys.LEADER, b"me")])
        revision = await tidy(store, Compare(keys.LEADER, modified=outcome.revision), 0)
        # The second time, all that was before the first is forgotten.
        assert await tidy(store, Compare(keys.LEADER, modified=outcome.revision), revision) >= revision

    on(cluster, work)
    return {key: value for key, value in snapshot(cluster).items() if key != keys.LEADER}


def needed(found: dict[str, bytes], releases: list[str]) -> set[str]:
    """Return the keys of plans and blobs that releases, and what hosts were told, name."""
    needed = set[str]()
    plans = [
        keys.plan(release, host)
        for name in releases
        for host, release in decode(Release, found[keys.release(name)]).plans.items()
    ]
    for key in plans:
        needed.add(key)
        needed |= {keys.blob(keys.last(key), digest) for digest in decode(Plan, found[key]).files.values()}
    return needed


def test_three_releases_are_kept_and_what_hosts_were_told(cluster: Cluster, site: Site) -> None:
    site.hosts("abc")
    names = [site.push()]
    first = snapshot(cluster)

    async def tell(store: Store) -> None:
        # A host that is paused since then.
        plan = decode(Plan, first[keys.plan(names[0], "c")])
        await store.commit(
            [Put(keys.desired("c"), encode(Desired(plan.release, plan.commit, plan.sandboxes, plan.files)))]
        )

    on(cluster, tell)
    for number in range(4):
        site.write({f"{each}/{each}0.yaml": manifest(f"{each}0", f"change {number}") for each in "ac"})
        names.append(site.push())
    before = snapshot(cluster)
    found = tidied(cluster)
    told = {keys.plan(names[0], "c"), *(key for key in first if key.startswith(keys.blobs("c")))}
    stored = {key for key in found if key.startswith((keys.PLANS, keys.BLOBS))}
    assert stored == needed(found, names[-3:]) | told
    # The other host was never changed.
    assert keys.plan(names[0], "b") in stored
    others = {key: value for key, value in found.items() if not key.startswith((keys.PLANS, keys.BLOBS, keys.RELEASES))}
    assert others == {
        key: value for key, value in before.items() if not key.startswith((keys.PLANS, keys.BLOBS, keys.RELEASES))
    }
    assert {name: bool(decode(Release, found[keys.release(name)]).plans) for name in names} == {
        name: name in names[-3:] for name in names
    }
    code, text = site.run("rollback", names[0])
    assert code == 3
    assert "is not kept any more; check out its commit" in text
    assert "cannot be restored any more" in site.fleet("history")
    site.fleet("rollback", names[-3])


def test_nothing_is_removed_while_a_push_is_under_way_or_by_who_does_not_lead(cluster: Cluster, site: Site) -> None:
    site.hosts("a")
    site.push()
    digest = blobs.digest(b"of a push that is under way")

    async def upload(store: Store) -> None:
        await store.commit([Put(keys.blob("a", digest), b"x"), Put(keys.PUSHING, b"somebody")])

    on(cluster, upload)
    before = snapshot(cluster)
    assert tidied(cluster) == before

    async def not_leading(store: Store) -> None:
        from reconciler.fleet.store import Delete

        await store.commit([Delete(keys.PUSHING)])
        await tidy(store, Compare(keys.LEADER, created=1), 0)

    on(cluster, not_leading)
    assert keys.blob("a", digest) in snapshot(cluster)
    assert keys.blob("a", digest) not in tidied(cluster)
