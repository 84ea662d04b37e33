"""What people and programs are shown of a fleet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reconciler.fleet import keys
from reconciler.fleet.records import Desired, HostStatus, Plan, Unusual, decode, encode
from reconciler.fleet.store import Put, Store
from tests.fleet.cluster import Cluster
from tests.fleet.site import Site, manifest
from tests.fleet.test_push import on, snapshot
from tests.terminal import shown

RECONCILER = [sys.executable, "-m", "reconciler"]


def tell(cluster: Cluster, hosts: dict[str, HostStatus | None]) -> None:
    """Tell hosts their plans, as a leader does, and report what they answer. All are connected with a gate."""
    found = snapshot(cluster)
    plans = {keys.last(key): decode(Plan, value) for key, value in found.items() if key.startswith(keys.PLANS)}

    async def work(store: Store) -> None:
        for host, status in hosts.items():
            plan = plans[host]
            desired = Desired(plan.release, plan.commit, plan.sandboxes, plan.files)
            operations = [Put(keys.desired(host), encode(desired)), Put(keys.alive(host), b"gate-1")]
            if status:
                told = encode(HostStatus(plan.release, status.reached, status.counts, status.unusual, status.alarms))
                operations.append(Put(keys.status(host), told))
            await store.commit(operations)
        await store.commit([Put(keys.LEADER, b"gate-1")])

    on(cluster, work)


BAD = Unusual("c0", "failed", "no such device\x1b[31m\u202e")


@pytest.fixture
def fleet(cluster: Cluster, site: Site) -> Site:
    """Return a site of which each host is in another state."""
    site.hosts("abcdef")
    site.fleet("host", "add", "a", "--label", "zone=x", "--fingerprint", "AB:" * 31 + "AB")
    site.fleet("pause", "e")
    site.fleet("host", "fence", "f")
    site.push("--waves", "100%")
    tell(
        cluster,
        {
            "a": HostStatus("", True, {"converged": 2}),
            "b": None,
            "c": HostStatus("", True, {"converged": 1, "failed": 1}, (BAD,), ("clock is 40 s ahead",)),
        },
    )
    return site


def test_each_host_has_a_line_with_its_state(fleet: Site) -> None:
    code, text = fleet.run("status")
    assert code == 1
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert text.splitlines()[2] == "6 hosts: 1 reached, 1 under way, 1 failed, 1 silent, 1 paused, 1 fenced"
    assert lines["a"].split()[1:] == ["reached", lines["a"].split()[2], "1", "2", "converged"]
    assert "under way" in lines["b"]
    assert r"c0 is failed: no such device\x1b[31m\u202e; clock is 40 s ahead" in lines["c"]
    assert "no gate is connected with it, and it never reported" in lines["d"]
    assert "\x1b" not in text


def test_programs_get_all_of_it(fleet: Site) -> None:
    code, text = fleet.run("status", "-o", "json")
    found = json.loads(text)
    assert code == 1
    assert yaml.safe_load(fleet.run("status", "-o", "yaml")[1]) == found
    assert found["leader"] == "gate-1"
    assert found["alarms"] == []
    assert found["rollout"]["state"] == "rolling"
    states = {each["host"]: each["state"] for each in found["hosts"]}
    assert states == {
        "a": "reached",
        "b": "under way",
        "c": "failed",
        "d": "silent",
        "e": "paused",
        "f": "fenced",
    }
    (one,) = json.loads(fleet.run("status", "-o", "json", "c")[1])["hosts"]
    assert one["unusual"] == [{"sandbox": "c0", "state": "failed", "detail": BAD.detail}]
    assert one["sandboxes"] == ["c0", "c1"]


def test_one_host_is_shown_with_all_that_is_known(fleet: Site) -> None:
    code, text = fleet.run("status", "a")
    assert code == 0, text
    assert f"  certificate  {'ab' * 32}\n" in text
    assert "  labels       zone=x\n" in text
    assert fleet.run("status", "x")[0] == 2
    assert 'the fleet has no host "x"' in fleet.run("status", "x")[1]


def test_it_fits_a_narrow_terminal_without_unicode(fleet: Site) -> None:
    environment = {name: value for name, value in os.environ.items() if name.startswith("ETCDCTL_")}
    code, text = shown("fleet", "status", "--no-color", columns=40, environment={**environment, "LC_ALL": "C"})
    assert code == 1
    assert text.isascii()
    assert [line for line in text.splitlines() if len(line) > 40] == []
    assert "reached" in text


def test_to_a_pipe_only_what_changes_is_printed(cluster: Cluster, fleet: Site) -> None:
    command = [*RECONCILER, "fleet", "status", "--watch", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout
        first = [json.loads(process.stdout.readline()) for _ in range(7)]
        assert first[0]["rollout"]["state"] == "rolling"
        assert [each["host"] for each in first[1:]] == list("abcdef")
        tell(cluster, {"b": HostStatus("", True, {"converged": 2})})
        changed = json.loads(process.stdout.readline())
        assert (changed["host"], changed["state"]) == ("b", "reached")
        process.send_signal(2)
        assert process.wait(timeout=60) == 1


def test_a_fleet_that_nobody_leads_is_an_alarm(cluster: Cluster, site: Site) -> None:
    assert site.run("status") == (
        0,
        "nothing was pushed yet\n0 hosts; `reconciler fleet host add NAME` adds one\n",
    )
    site.hosts("a")
    site.push()
    code, text = site.run("status")
    assert code == 1
    assert "no gate leads the rollout" in text


def test_nothing_of_a_fleet_is_loaded_by_other_commands(site: Site) -> None:
    (site.tree / "a.yaml").write_text(manifest("a"))
    code = (
        "import sys\n"
        "from reconciler.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(sorted(each for each in sys.modules if each.startswith(('grpc', 'aiohttp', 'reconciler.fleet'))))\n"
    )
    for words in (["--help"], ["validate", str(site.tree / "a.yaml")], ["diff", str(site.tree / "a.yaml")]):
        ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert ran.stdout.splitlines()[-1] == "[]"


def test_a_missing_library_is_named_with_both_ways_to_get_it(site: Site) -> None:
    code = "import sys; sys.modules['grpc'] = None; from reconciler.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "fleet", "status"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "the library grpc is missing, which a fleet needs" in ran.stderr
    assert "pipx install 'reconciler[fleet]'" in ran.stderr
    assert "apt-get install python3-grpcio" in ran.stderr
