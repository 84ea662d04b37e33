"""Pushes on a real cluster, as a person types them: what they do, and what they refuse."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from reconciler.fleet import blobs, keys
from reconciler.fleet.leader import Leader
from reconciler.fleet.records import HostStatus, Plan, Release, Rollout, decode, encode
from reconciler.fleet.store import Put, Store
from tests.fleet.cluster import Cluster
from tests.fleet.site import Hosts, Site, manifest, played

_T = TypeVar("_T")


def on(cluster: Cluster, work: Callable[[Store], Awaitable[_T]]) -> _T:
    """Run a coroutine with a store."""

    async def run() -> _T:
        store = cluster.store()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def snapshot(cluster: Cluster) -> dict[str, bytes]:
    """Return all that is in the store."""

    async def work(store: Store) -> dict[str, bytes]:
        return {each.key: each.value for each in (await store.list(keys.ROOT)).pairs}

    return on(cluster, work)


def led(cluster: Cluster, names: str, work: Callable[[Hosts], Awaitable[None]]) -> None:
    """Run a coroutine while hosts are played, and a leader leads."""

    async def run(store: Store) -> None:
        leading = asyncio.ensure_future(Leader(store, "leader", lambda _: None).run())
        try:
            async with played(store, names) as hosts:
                await work(hosts)
        finally:
            leading.cancel()
            await asyncio.wait({leading})

    on(cluster, run)


def test_each_file_is_stored_before_the_release_that_names_it(cluster: Cluster, site: Site) -> None:
    rules = "-A -t 172.17.0.7:80 -s rr\n"
    large = manifest("large") + "# " + os.urandom(900_000).hex() + "\n"
    with_rules = manifest("web-1").replace("routes: []", "ipvs: {rulesFile: rules/web.ipvs}")
    site.write({"a/web.yaml": with_rules, "a/rules/web.ipvs": rules, "a/sub/x.yaml": large, "README.md": "x"})
    site.fleet("host", "add", "a")
    name = site.push()
    found = snapshot(cluster)
    plan = decode(Plan, found[keys.plan(name, "a")])
    texts = {"web.yaml": with_rules, "rules/web.ipvs": rules, "sub/x.yaml": large}
    assert plan.files == {path: blobs.digest(text.encode()) for path, text in texts.items()}
    assert plan.places == {"web-1": "web.yaml", "large": "sub/x.yaml"}
    assert plan.changed == ("large", "web-1")
    assert plan.commit == site.git("rev-parse", "HEAD").strip()
    for path, digest in plan.files.items():
        parts = [found[key] for key in sorted(found) if key.startswith(keys.blob("a", digest))]
        assert all(len(each) <= blobs.CHUNK for each in parts)
        assert blobs.unpack(b"".join(parts), digest) == texts[path].encode()
    release = decode(Release, found[keys.release(name)])
    assert release.waves == (("a",),)
    assert release.plans == {"a": name}


def test_a_host_that_a_push_does_not_change_keeps_its_plan_and_is_not_told(cluster: Cluster, site: Site) -> None:
    site.hosts("abc")
    first = site.push()

    async def work(hosts: Hosts) -> None:
        await asyncio.to_thread(site.fleet, "wait", first)
        site.write({"b/b0.yaml": manifest("b0", "changed")})
        second = await asyncio.to_thread(site.push, "--wait")
        found = await asyncio.to_thread(snapshot, cluster)
        assert decode(Release, found[keys.release(second)]).plans == {"a": first, "b": second, "c": first}
        assert decode(Plan, found[keys.plan(second, "b")]).changed == ("b0",)
        assert keys.plan(second, "a") not in found
        again = await asyncio.to_thread(site.run, "push", "--wait", str(site.tree))
        assert again == (
            0,
            f"nothing to do: this is release {second} already, which is done\nrelease {second}: done\n",
        )

    led(cluster, "abc", work)


def refused(site: Site, cluster: Cluster, *options: str) -> str:
    """Return why a push is refused. Nothing in the store may be another one then."""
    before = snapshot(cluster)
    code, text = site.run("push", *options, str(site.tree))
    assert code == 3, text
    assert snapshot(cluster) == before
    return text


def test_an_empty_tree_is_refused_whatever_is_allowed(cluster: Cluster, site: Site) -> None:
    site.hosts("ab")
    site.push()
    for each in "ab":
        shutil.rmtree(site.tree / each)
    site.write({"README.md": "empty"})
    assert "an empty tree would take everything" in refused(site, cluster, "--allow-delete", "all")


def test_half_a_tree_is_refused(cluster: Cluster, site: Site) -> None:
    site.hosts("abcd")
    site.push()
    # A checkout that has ended half way.
    shutil.rmtree(site.tree / "b")
    (site.tree / "c" / "c1.yaml").unlink()
    text = refused(site, cluster, "--allow-delete", "all")
    assert "lacks 3 manifests of its commit" in text
    assert "  b/b0.yaml\n  b/b1.yaml\n  c/c1.yaml\n" in text
    # The same by mistake, and committed.
    site.commit()
    text = refused(site, cluster)
    assert "this would delete 1 of 4 hosts; the limit is" in text
    assert "Hosts that would have nothing left: b" in text
    assert "this would delete 3 of 8 sandboxes" in refused(site, cluster, "--allow-delete", "2")
    site.push("--allow-delete", "3")


def test_a_tree_of_another_repository_is_refused(cluster: Cluster, site: Site) -> None:
    site.hosts("ab")
    site.push()
    shutil.rmtree(site.tree / ".git")
    site.git("init", "--quiet")
    site.write({"a/a0.yaml": manifest("a0", "other"), "b/b0.yaml": manifest("b0", "other")})
    assert "of another repository than release 1-" in refused(site, cluster)
    site.write({"x/x0.yaml": manifest("x0"), "y/y0.yaml": manifest("y0")})
    assert "this tree has 2 folders of no host of this fleet: x, y" in refused(site, cluster, "--allow-delete", "all")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"b/b9.yaml": manifest("a0")}, "sandbox a0 is in"),
        ({"b/b0.yaml": "apiVersion: reconciler/v1\nsandbox: b0\n"}, "driver"),
        ({"b/b9.yaml": "apiVersion: reconciler/v1\nsandbox: b9\n"}, "driver"),
        ({"a-/x.yaml": manifest("x")}, "cannot be the name of a host"),
        ({"b/b9.yaml": manifest("b9").replace("routes: []", "ipvs: {rulesFile: ../a/a0.yaml}")}, "rulesFile"),
    ],
)
def test_a_tree_with_a_mistake_is_not_pushed_at_all(
    cluster: Cluster, site: Site, files: dict[str, str], message: str
) -> None:
    site.hosts("ab")
    site.push()
    before = snapshot(cluster)
    site.write(files)
    code, text = site.run("push", str(site.tree))
    assert code in {2, 3}
    assert message in text
    assert snapshot(cluster) == before


def test_a_folder_of_a_host_that_is_a_link_is_not_followed(cluster: Cluster, site: Site, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "x.yaml").write_text(manifest("x"))
    site.hosts("a")
    (site.tree / "b").symlink_to(tmp_path / "else")
    site.commit()
    code, text = site.run("push", str(site.tree))
    assert code == 2
    assert "the folder of a host cannot be a link" in text


def test_what_is_no_work_tree_is_an_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "plain" / "a").mkdir(parents=True)
    (tmp_path / "plain" / "a" / "a0.yaml").write_text(manifest("a0"))
    code, text = site.run("push", str(tmp_path / "plain"))
    assert (code, "is in no git work tree" in text) == (2, True)
    code, text = site.run("diff", str(tmp_path / "missing"))
    assert code == 2


def test_a_push_is_only_what_the_diff_has_shown(cluster: Cluster, site: Site) -> None:
    site.hosts("ab")
    code, text = site.run("diff", str(site.tree))
    assert code == 1
    shown = text.rsplit(" ", 1)[1].strip()
    before = snapshot(cluster)
    assert site.run("push", "--dry-run", "--expect", shown, str(site.tree)) == (0, text)
    assert snapshot(cluster) == before
    site.write({"b/b0.yaml": manifest("b0", "changed")})
    assert f"not {shown}: the tree or the fleet has changed" in refused(site, cluster, "--expect", shown)
    site.git("reset", "--quiet", "--hard", "HEAD~1")
    site.push("--expect", shown)
    site.write({"b/b0.yaml": manifest("b0", "changed"), "c.yaml": "ignored"})
    code, text = site.run("diff", str(site.tree))
    assert code == 1
    sum_ = "1 host: 0 sandboxes to add, 1 to change, 0 to delete, 0 to move. Fingerprint "
    assert text.startswith(f"b\n  ~ b0\n\n1 more host: not told yet what an earlier push said\n{sum_}")


def test_an_edit_that_is_not_committed_is_told_by_the_commit(cluster: Cluster, site: Site) -> None:
    site.hosts("a")
    (site.tree / "a" / "a0.yaml").write_text(manifest("a0", "edited"))
    name = site.push()
    assert decode(Plan, snapshot(cluster)[keys.plan(name, "a")]).commit.endswith("-dirty")


def _start(site: Site, *, stopped_at: str = "") -> subprocess.Popen[str]:
    """Start a push as a process of its own. `stopped_at`: the function before which it stops itself."""
    code = (
        "import os, signal, sys\n"
        "from reconciler.fleet import push\n"
        f"name = {stopped_at!r}\n"
        "original = getattr(push, name or '_publish')\n"
        "async def stopped(*words):\n"
        "    if name:\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    return await original(*words)\n"
        "setattr(push, name or '_publish', stopped)\n"
        "from reconciler.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", code, "fleet", "push", str(site.tree)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _until_stopped(process: subprocess.Popen[str]) -> None:
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


@pytest.mark.parametrize("stopped_at", ["_upload", "_publish"])
def test_a_push_that_is_killed_half_way_is_never_seen(cluster: Cluster, site: Site, stopped_at: str) -> None:
    site.hosts("ab")
    first = site.push()
    site.write({"b/b0.yaml": manifest("b0", "changed")})
    before = snapshot(cluster)
    process = _start(site, stopped_at=stopped_at)
    _until_stopped(process)
    # Nobody can push beside it.
    assert keys.PUSHING in snapshot(cluster)
    process.kill()
    process.communicate()
    after = snapshot(cluster)
    pointers = (keys.ROLLOUT, keys.RELEASES, keys.ALL_DESIRED)
    assert {key: value for key, value in after.items() if key.startswith(pointers)} == {
        key: value for key, value in before.items() if key.startswith(pointers)
    }
    assert decode(Rollout, after[keys.ROLLOUT]).release == first
    # The next one waits until the lease of the killed one has ended, and is whole.
    second = site.push()
    found = snapshot(cluster)
    plan = decode(Plan, found[keys.plan(second, "b")])
    assert all(keys.blob("b", digest) in found for digest in plan.files.values())


def test_of_two_pushes_at_once_one_comes_after_the_other(cluster: Cluster, site: Site) -> None:
    site.hosts("abcd")
    processes = [_start(site) for _ in range(3)]
    texts = [each.communicate(timeout=60)[0] for each in processes]
    assert [each.returncode for each in processes] == [0, 0, 0], texts
    # All three push the same: the first does it.
    assert sum("4 hosts in" in text for text in texts) == 1
    assert sum("nothing to do: this is release 1-" in text for text in texts) == 2
    assert decode(Rollout, snapshot(cluster)[keys.ROLLOUT]).release.startswith("1-")


def test_a_push_beside_one_that_hangs_is_refused(cluster: Cluster, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.hosts("ab")
    monkeypatch.setattr("reconciler.fleet.push._WAIT", 0.5)

    async def hold(store: Store) -> None:
        lease = await store.grant(60)
        await store.commit([Put(keys.PUSHING, b"somebody", lease)])

    on(cluster, hold)
    assert "another push is under way, by somebody" in refused(site, cluster)


def test_a_push_while_an_older_one_is_rolled_out_replaces_it(cluster: Cluster, site: Site) -> None:
    site.hosts("abcd")
    first = site.push("--waves", "1,100%")

    async def work(hosts: Hosts) -> None:
        hosts.mute.add("a")
        # The first wave never ends, so b to d were not told of the first release.
        await until(cluster, lambda found: keys.desired("a") in found)
        site.write({"c/c0.yaml": manifest("c0", "changed")})
        second = await asyncio.to_thread(site.push, "--waves", "100%")
        await until(cluster, lambda found: all(keys.desired(each) in found for each in "bcd"))
        found = await asyncio.to_thread(snapshot, cluster)
        release = decode(Release, found[keys.release(second)])
        assert release.waves == (("b", "c", "d"),)
        assert release.plans == {"a": first, "b": first, "c": second, "d": first}

    led(cluster, "abcd", work)


async def until(cluster: Cluster, holds: Callable[[dict[str, bytes]], bool]) -> None:
    """Wait until something is so in the store."""
    deadline = time.monotonic() + 60
    while not holds(await asyncio.to_thread(snapshot, cluster)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_a_failing_host_stops_the_rollout_and_a_rollback_ends_it(cluster: Cluster, site: Site) -> None:
    site.hosts("abcd")

    async def work(hosts: Hosts) -> None:
        first = await asyncio.to_thread(site.push, "--wait")
        before = await asyncio.to_thread(snapshot, cluster)
        site.write({f"{each}/{each}0.yaml": manifest(f"{each}0", "changed") for each in "abcd"})
        hosts.failing["a0"] = "failed"
        code, text = await asyncio.to_thread(site.run, "push", "--waves", "1,2,100%", "--wait", str(site.tree))
        assert code == 1
        assert "stopped, wave 1: 1 host (a) failed" in text
        code, text = await asyncio.to_thread(site.run, "status")
        assert code == 1
        assert "rollout stopped, wave 1 of 3" in text
        found = await asyncio.to_thread(snapshot, cluster)
        told = {each for each in "abcd" if found[keys.desired(each)] != before[keys.desired(each)]}
        assert told == {"a"}
        hosts.failing.clear()
        text = await asyncio.to_thread(site.fleet, "rollback", first, "--wait")
        found = await asyncio.to_thread(snapshot, cluster)
        # The others have the first release still, and are told nothing.
        assert {each for each in "bcd" if found[keys.desired(each)] != before[keys.desired(each)]} == set()
        assert "1 host." in text
        assert f"restores {first}" in await asyncio.to_thread(site.fleet, "history")

    led(cluster, "abcd", work)


def test_who_waits_is_told_why_it_does_not_go_on(cluster: Cluster, site: Site) -> None:
    site.hosts("a")
    first = site.push()
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler", "fleet", "wait", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout
    assert process.stdout.readline() == f"release {first}: rolling, wave 1: no gate leads the rollout at present\n"
    site.write({"a/a0.yaml": manifest("a0", "changed")})
    second = site.push()
    assert process.communicate(timeout=60)[0] == f"release {first}: release {second} is newer\n"
    assert process.returncode == 1
    assert site.run("wait", "3") == (
        2,
        f'reconciler: there is no release "3"; expected one of: {first}, {second}\n',
    )


def test_a_paused_rollout_and_a_paused_host_are_told_nothing(cluster: Cluster, site: Site) -> None:
    site.hosts("abc")
    site.fleet("pause", "b")
    name = site.push("--waves", "1,100%")
    assert site.fleet("pause") == f"release {name}: paused\n"

    async def work(hosts: Hosts) -> None:
        await until(cluster, lambda found: keys.LEADER in found)
        await asyncio.sleep(1)
        found = await asyncio.to_thread(snapshot, cluster)
        assert not any(key.startswith(keys.ALL_DESIRED) for key in found)
        await asyncio.to_thread(site.fleet, "resume")
        await asyncio.to_thread(site.fleet, "wait", name)
        assert keys.desired("b") not in await asyncio.to_thread(snapshot, cluster)
        await asyncio.to_thread(site.fleet, "resume", "b")
        await until(cluster, lambda found: keys.desired("b") in found)

    led(cluster, "abc", work)


def test_a_host_gets_another_name_with_all_that_it_has(cluster: Cluster, site: Site) -> None:
    site.hosts("ab")
    site.push()

    async def work(hosts: Hosts) -> None:
        await asyncio.to_thread(site.fleet, "wait", "1")
        await asyncio.to_thread(site.fleet, "host", "rename", "a", "z", "--fingerprint", "ab" * 32)
        (site.tree / "a").rename(site.tree / "z")
        site.commit()
        text = await asyncio.to_thread(site.fleet, "push", str(site.tree))
        assert text.startswith("nothing to do: this is release 1-")
        found = await asyncio.to_thread(snapshot, cluster)
        assert keys.host("a") not in found
        assert keys.desired("a") not in found
        assert keys.desired("z") in found
        site.write({"z/a0.yaml": manifest("a0", "changed")})
        await asyncio.to_thread(site.fleet, "push", "--wait", str(site.tree))

    led(cluster, "abz", work)


def test_a_host_that_others_await_is_neither_renamed_nor_removed(cluster: Cluster, site: Site) -> None:
    site.hosts("ab", sandboxes=1)

    async def work(hosts: Hosts) -> None:
        await asyncio.to_thread(site.push, "--wait")
        hosts.mute.add("a")
        # What host a has goes to host b, and a does not answer.
        (site.tree / "a" / "a0.yaml").rename(site.tree / "b" / "a0.yaml")
        site.commit()
        await asyncio.to_thread(site.push, "--allow-delete", "all")
        await until(cluster, lambda found: b'withheld":{"a0":"a"}' in found[keys.desired("b")])
        for words in (["rename", "a", "z"], ["remove", "a"]):
            code, text = await asyncio.to_thread(site.run, "host", *words)
            assert code == 3, text
            assert "sandboxes move from a to b at present" in text
        assert "a0" not in hosts.holding["b"]
        # A person has made sure that it is off.
        await asyncio.to_thread(site.fleet, "host", "fence", "a")
        hosts.holding.pop("a")
        await until(cluster, lambda found: b'withheld":{}' in found[keys.desired("b")])

    led(cluster, "ab", work)


def test_a_host_with_sandboxes_is_removed_only_if_it_is_fenced(cluster: Cluster, site: Site) -> None:
    site.hosts("ab")
    site.push()
    assert site.run("host", "remove", "a")[0] == 3
    assert site.run("host", "remove", "x")[0] == 2
    site.fleet("host", "fence", "a")
    site.fleet("host", "remove", "a")
    # What it had can go to another host.
    (site.tree / "a" / "a0.yaml").rename(site.tree / "b" / "a0.yaml")
    shutil.rmtree(site.tree / "a")
    site.commit()
    name = site.push()
    assert decode(Plan, snapshot(cluster)[keys.plan(name, "b")]).awaited == {}


def test_an_etcd_that_cannot_be_reached_is_an_error_with_the_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.fleet.etcd.client.PATIENCE", 0.5)
    code, text = site.run("status", "--etcd", "https://127.77.0.1:9")
    assert code == 2
    assert "no member of etcd answers as it should" in text
    assert "127.77.0.1:9: " in text
    monkeypatch.delenv("ETCDCTL_KEY")
    code, text = site.run("status")
    assert (code, "missing: --etcd-key (ETCDCTL_KEY)" in text) == (2, True)
    monkeypatch.delenv("ETCDCTL_ENDPOINTS")
    assert "which etcd?" in site.run("status")[1]


def test_after_a_restore_the_next_push_settles_what_hosts_have(cluster: Cluster, site: Site) -> None:
    site.hosts("ab")
    first = site.push()

    async def report(store: Store) -> None:
        # Host a had release 7 before etcd was restored; what host b had is known.
        await store.commit(
            [
                Put(keys.status("a"), encode(HostStatus("7-abcdef", reached=True))),
                Put(keys.status("b"), encode(HostStatus(first, reached=True))),
            ]
        )

    on(cluster, report)
    assert "1 host had releases that etcd does not know, such as a 7-abcdef" in site.run("status")[1]
    assert site.run("diff", str(site.tree))[0] == 1
    second = site.push()
    assert decode(Release, snapshot(cluster)[keys.release(second)]).plans == {"a": second, "b": first}

    async def reported(store: Store) -> None:
        await store.commit([Put(keys.status("a"), encode(HostStatus(second, reached=True)))])

    on(cluster, reported)
    assert "does not know" not in site.run("status")[1]
    assert site.fleet("push", str(site.tree)).startswith("nothing to do")
