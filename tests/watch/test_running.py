"""A watcher as a process, on real namespaces: what follows from changes in files and in the kernel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler.watch.client import SOCKET
from tests.conftest import Kernel, ip
from tests.monitor import monitored_routes
from tests.system.box import nic
from tests.watch.running import (
    END,
    OTHER,
    REFUSED,
    ROUTE,
    Keep,
    Kept,
    Running,
    at_once,
    is_on_host,
    put,
    reconciler,
    until,
    watching,
)

# The seconds in which something has to happen by itself after the fourth try of what fails: the fifth is 8 s later.
BEFORE_THE_FIFTH = 7.0
THIRD = ROUTE | {"dest": "10.10.0.0/16"}


def delete(kept: Kept, dest: str = "10.8.0.0/16") -> None:
    kept.ip("route", "del", dest)


def test_an_edit_of_a_manifest_reaches_the_kernel(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        answer = watcher.await_state("converged", kept.name)
        assert (answer.code, answer.alarms, answer.problems) == (0, [], [])
        assert kept.is_as_written()
        kept.write(routes=[ROUTE, OTHER])
        watcher.until(lambda: kept.has("10.9.0.0/16"))
        kept.write(routes=[OTHER])
        watcher.until(lambda: kept.has("10.9.0.0/16") and not kept.has())
        # It is logged after the kernel has it.
        watcher.until(lambda: len(watcher.events("applied")) > 2)
        told = [(each["cause"], each["operations"], each["first"]) for each in watcher.events("applied")[1:]]
    assert told == [
        ("manifest", 1, "ip route add 10.9.0.0/16 via 10.0.0.1 dev eth0 proto 200"),
        ("manifest", 1, "ip route del 10.8.0.0/16 via 10.0.0.1 dev eth0 proto 200"),
    ]


CHANGES = [
    "route del 10.8.0.0/16",
    "address flush dev eth0",
    "link set eth0 down",
    "link set eth0 name eth7",
    "link set eth0 mtu 1300",
    "link set eth0 address 02:00:00:00:00:77",
    "route replace 10.8.0.0/16 via 10.0.0.9 proto 200",
]


def test_each_kind_of_drift_is_repaired(folder: Path, keep: Keep) -> None:
    changed = [(keep(), change) for change in CHANGES]
    with watching(folder) as watcher:
        watcher.await_state("converged", *(kept.name for kept, _ in changed))
        for kept, change in changed:
            kept.ip(*change.split())
        for kept, change in changed:
            watcher.until(kept.is_as_written, change)
            # It is logged after the kernel has it.
            event = watcher.await_event("repaired", sandbox=kept.name)
            assert (event["cause"], event["file"]) == ("drift", str(kept.file))
        answer = watcher.await_state("converged", *(kept.name for kept, _ in changed))
        # A look can fall between two effects of one command.
        assert min(each["drift_1h"] for each in answer.sandboxes.values()) >= 1


MAC = "02:42:20:6f:a3:f1"
ITEMS: dict[str, Any] = {
    "neighbours": [
        {"address": "10.0.0.1", "device": "eth0", "hwAddr": MAC},
        {"address": "10.0.0.77", "device": "eth0", "proxy": True},
    ],
    "rules": [{"priority": 100, "from": "10.1.0.0/16", "table": 100}],
}
ITEM_CHANGES = [
    "rule del priority 100",
    "rule add priority 101 table 100 protocol 200",
    "-6 rule add priority 101 table 100 protocol 200",
    "neigh del 10.0.0.1 dev eth0",
    "neigh replace 10.0.0.1 lladdr 02:42:20:6f:a3:f9 dev eth0 nud permanent",
    f"neigh add 10.0.0.2 lladdr {MAC} dev eth0 nud permanent protocol 200",
    "link set eth0 down",
]


def items(kept: Kept) -> str:
    """Return the rules and neighbours that are ours."""
    shown = (("rule",), ("-6", "rule"), ("neigh", "show", "nud", "permanent"), ("neigh", "show", "proxy"))
    lines = [line for words in shown for line in kept.ip(*words).splitlines()]
    return "\n".join(sorted(line for line in lines if "proto 200" in line))


def test_drift_of_rules_and_neighbours_is_repaired_and_what_is_learned_is_none(folder: Path, keep: Keep) -> None:
    changed = [(keep(), change) for change in ITEM_CHANGES]
    quiet = keep()
    every = [*(kept for kept, _ in changed), quiet]
    for kept in every:
        kept.write(**ITEMS)
    # Looks that nothing asks for are further apart than anything here is waited for.
    with watching(folder, "--look", "10min") as watcher:
        watcher.await_state("converged", *(kept.name for kept in every))
        before = items(quiet)
        assert before.count("\n") == 2
        watcher.await_quiet()
        quiet.ip("neigh", "add", "10.0.0.5", "lladdr", MAC, "dev", "eth0", "nud", "stale")
        for kept, change in changed:
            kept.ip(*change.split())
            watcher.await_event("repaired", sandbox=kept.name)
            assert items(kept) == before, change
        assert "10.0.0.5" in quiet.ip("neigh")
        assert not watcher.events("repaired", sandbox=quiet.name)
        answer = watcher.await_state("converged", *(kept.name for kept in every))
        assert {name: each["drift_1h"] for name, each in answer.sandboxes.items()} == {
            **{kept.name: 1 for kept, _ in changed},
            quiet.name: 0,
        }


def sysctl(kept: Kept, *words: str) -> str:
    return ip("netns", "exec", kept.name, "sysctl", *words)


# Sysctls that the kernel reports a change of, what they are in the manifest, and one that it reports nothing of.
TOLD = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.conf.eth0.rp_filter": 2,
    "net.ipv4.conf.eth0.proxy_arp": 1,
    "net.ipv6.conf.eth0.proxy_ndp": 1,
    "net.ipv6.conf.eth0.ignore_routes_with_linkdown": 1,
}
UNTOLD = {"net.ipv4.conf.eth0.arp_ignore": 1, "net.ipv6.conf.eth0.accept_ra": 0, "net.ipv6.bindv6only": 1}


def tune(kept: Kept) -> None:
    """Have all of them in a manifest."""
    everywhere = {name: value for name, value in (TOLD | UNTOLD).items() if ".eth0." not in name}
    own = {"rp_filter": 2, "proxy_arp": 1, "proxy_ndp": 1, "arp_ignore": 1, "accept_ra": 0}
    (nic,) = kept.sections["interfaces"]
    own |= {"ipv6.ignore_routes_with_linkdown": 1}
    kept.write(sysctls=everywhere, interfaces=[nic | {"sysctls": own}])


def is_tuned(kept: Kept) -> bool:
    wanted = TOLD | UNTOLD
    return sysctl(kept, "-n", *wanted).split() == [str(value) for value in wanted.values()]


def test_drift_of_sysctls_is_repaired(folder: Path, keep: Keep) -> None:
    changed = [(keep(), name) for name in TOLD]
    for kept, _ in changed:
        tune(kept)
    with watching(folder, "--look", "10min") as watcher:
        watcher.await_state("converged", *(kept.name for kept, _ in changed))
        watcher.await_quiet()
        for kept, name in changed:
            assert is_tuned(kept)
            sysctl(kept, "-qw", f"{name}=0")
            event = watcher.await_event("repaired", sandbox=kept.name)
            assert (event["cause"], event["first"].partition("=")[0]) == ("drift", f"sysctl -w {name}")
            assert is_tuned(kept), name


def test_sysctls_that_the_kernel_reports_nothing_of_are_looked_at(folder: Path, keep: Keep) -> None:
    kept = keep()
    tune(kept)
    with watching(folder, "--look", "1s") as watcher:
        watcher.await_state("converged", kept.name)
        for name, value in UNTOLD.items():
            sysctl(kept, "-qw", f"{name}={1 - value}")
            watcher.until(lambda: is_tuned(kept), name)


def test_a_proxy_is_noticed_by_a_look_as_the_kernel_tells_nothing_of_it(folder: Path, keep: Keep) -> None:
    kept = keep()
    kept.write(**ITEMS)
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        before = items(kept)
        kept.ip("neigh", "del", "proxy", "10.0.0.77", "dev", "eth0")
        watcher.signal(signal.SIGHUP)
        watcher.await_event("repaired", sandbox=kept.name)
        assert items(kept) == before


def test_prune_takes_rules_and_neighbours_away(folder: Path, keep: Keep) -> None:
    kept, _ = keep(), keep()
    kept.write(**ITEMS)
    with watching(folder, "--prune") as watcher:
        watcher.await_state("converged", kept.name)
        assert items(kept)
        kept.ip("rule", "add", "priority", "200", "table", "100", "protocol", "static")
        kept.file.unlink()
        watcher.await_event("pruned", sandbox=kept.name)
        assert items(kept) == ""
        assert "proto static" in kept.ip("rule")


def test_drift_in_one_sandbox_does_not_trouble_another(folder: Path, keep: Keep) -> None:
    one, other = keep(), keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", one.name, other.name)
        watcher.await_quiet()
        before, logged = watcher.status().sandboxes, len(watcher.lines())
        delete(one)
        watcher.until(one.has)
        watcher.await_event("repaired", sandbox=one.name)
        watcher.await_quiet()
        after = watcher.status().sandboxes
        assert _without_time(after[other.name]) == _without_time(before[other.name])
        assert after[one.name]["looked"] > before[one.name]["looked"]
        assert {each["sandbox"] for each in watcher.lines()[logged:]} == {one.name}


def _without_time(status: dict[str, Any]) -> dict[str, Any]:
    """Return a status without what a look changes that nothing caused: on a busy host one may be due."""
    return {name: value for name, value in status.items() if name not in {"looked", "took"}}


def test_a_broken_manifest_leaves_the_last_good_one_in_force(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        good = kept.file.read_text()
        put(kept.file, good.replace("mtu: 1500", "mtu: many"))
        watcher.await_event("manifest")
        answer = watcher.status()
        assert (answer.code, len(answer.problems)) == (1, 1)
        assert answer.problems[0].startswith(f"{kept.file}:")
        assert "interfaces[0].mtu" in answer.problems[0]
        assert f"manifest not used: {answer.problems[0]}" in answer.sandboxes[kept.name]["detail"]
        delete(kept)
        watcher.until(kept.has)
        put(kept.file, good.replace("mtu: 1500", "mtu: 1400"))
        watcher.until(lambda: "mtu 1400" in kept.ip("link", "show", "eth0"))
        watcher.await_state("converged", kept.name)
        answer = watcher.await_good()
        assert answer.problems == []
        assert "manifest not used" not in answer.sandboxes[kept.name]["detail"]


def test_a_sandbox_whose_manifest_is_deleted_stays_as_it_is(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name, other.name)
        kept.file.unlink()
        event = watcher.await_event("released")
        assert (event["sandbox"], event["pruned"]) == (kept.name, False)
        assert set(watcher.status().sandboxes) == {other.name}
        assert kept.is_as_written()
        delete(kept)
        delete(other)
        watcher.until(other.has)
        assert not kept.has()


def test_prune_empties_a_sandbox_whose_manifest_is_deleted(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    with watching(folder, "--prune") as watcher:
        watcher.await_state("converged", kept.name, other.name)
        kept.file.unlink()
        assert watcher.await_event("pruned")["sandbox"] == kept.name
        assert is_on_host(kept.device)
        assert not kept.ip("route", "show")
        assert other.is_as_written()
        watcher.await_good()


def vanish_with_the_folder(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def vanish_one_by_one(folder: Path) -> None:
    files = list(folder.iterdir())
    with at_once(folder):
        for file in files:
            file.unlink()


@pytest.mark.parametrize("vanish", [vanish_with_the_folder, vanish_one_by_one])
def test_prune_deletes_nothing_when_all_manifests_vanish(
    vanish: Callable[[Path], None], folder: Path, keep: Keep
) -> None:
    kept, other = keep(), keep()
    with watching(folder, "--prune") as watcher:
        watcher.await_state("converged", kept.name, other.name)
        vanish(folder)
        watcher.await_event("alarm", missing=str(folder))
        answer = watcher.status()
        assert answer.code == 1
        assert answer.alarms == [
            f"{folder} does not exist or contains no manifest; the manifests read from it before stay in force"
        ]
        assert kept.is_as_written()
        delete(other)
        watcher.until(other.has)
        assert not watcher.events("released")
        folder.mkdir(exist_ok=True)
        kept.write()
        other.write()
        watcher.await_good()


def test_prune_spares_a_sandbox_that_only_gets_another_id(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    with watching(folder, "--prune") as watcher:
        watcher.await_state("converged", kept.name, other.name)
        put(kept.file, kept.file.read_text().replace(f"sandbox: {kept.name}", "sandbox: another-id"))
        watcher.await_event("converged", sandbox="another-id")
        watcher.await_event("released", sandbox=kept.name)
        watcher.await_quiet()
        assert kept.is_as_written()
        assert sum(each["operations"] for each in watcher.events("pruned")) == 0
        assert not watcher.events("not pruned")


def test_a_namespace_that_is_made_again_is_restored(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_quiet()
        kept.end()
        assert watcher.await_state("waiting", kept.name).code == 1
        kept.begin()
        watcher.await_state("converged", kept.name)
        assert kept.is_as_written()
        delete(kept)
        watcher.until(kept.has, "repaired, as it was before")


def test_a_namespace_that_goes_right_after_the_start_is_waited_for(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_event("converged", sandbox=kept.name)
        kept.end()
        watcher.await_state("waiting", kept.name)


def test_a_namespace_that_is_made_again_between_two_looks_is_restored(folder: Path, keep: Keep) -> None:
    kept = keep(veth=True)
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_quiet()
        first = kept.inode()
        for _ in range(10):
            kept.end()
            # The kernel gives the number again as soon as it is free.
            time.sleep(0.03)
            ip("netns", "add", kept.name)
            if kept.inode() == first:
                break
        kept.supply()
        watcher.until(kept.is_as_written)
        delete(kept)
        watcher.until(kept.has, "repaired, as it was before")


def test_a_namespace_that_does_not_exist_yet_is_waited_for(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    kept.end()
    with watching(folder) as watcher:
        watcher.await_state("converged", other.name)
        answer = watcher.await_state("waiting", kept.name)
        assert answer.code == 1
        assert answer.sandboxes[kept.name]["looked"] == 0
        assert answer.sandboxes[kept.name]["detail"] == (
            f"netns {kept.name} does not exist (/run/netns/{kept.name}); `ip netns add {kept.name}` makes it"
        )
        ip("netns", "add", kept.name)
        watcher.await_state("converged", kept.name)
        watcher.await_good()
        assert kept.is_as_written()


def test_a_device_that_the_host_lacks_is_given_as_soon_as_it_comes(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    ip("link", "del", kept.device)
    with watching(folder, "--metrics", "0") as watcher:
        watcher.await_state("converged", other.name)
        answer = watcher.await_state("failed", kept.name)
        assert f"{kept.device}: no such device on this host" in answer.sandboxes[kept.name]["detail"]
        watcher.await_tries(4)
        kept.supply()
        until(kept.is_as_written, "it converges", seconds=BEFORE_THE_FIFTH)
        watcher.await_state("converged", kept.name)
        watcher.await_good()


def test_report_changes_nothing(folder: Path, keep: Keep) -> None:
    kept, good = keep(), keep()
    assert reconciler("apply", str(good.file)).returncode == 0
    with watching(folder, "--mode", "report") as watcher:
        watcher.await_state("converged", good.name)
        answer = watcher.await_state("drifted", kept.name)
        assert answer.code == 1
        assert answer.sandboxes[kept.name]["detail"].startswith(
            "4 operations needed, not done (--mode report). First: "
            f"ip link set dev {kept.device} netns {kept.name} name eth0"
        )
        delete(good)
        watcher.await_state("drifted", good.name)
        good.ip("route", "add", "10.8.0.0/16", "via", "10.0.0.1", "proto", "200")
        watcher.await_state("converged", good.name)
        assert is_on_host(kept.device)
        assert not watcher.events("applied") + watcher.events("repaired")


def test_a_manifest_that_says_paused_is_left_alone(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name, other.name)
        kept.write(paused="somebody works on it")
        answer = watcher.await_state("paused", kept.name)
        assert answer.sandboxes[kept.name]["detail"] == "somebody works on it"
        watcher.await_good()
        delete(kept)
        delete(other)
        watcher.until(other.has)
        assert not kept.has()
        kept.sections.pop("paused")
        kept.write()
        watcher.until(kept.has)
        watcher.await_state("converged", kept.name)


def test_a_pause_from_outside_is_kept_until_it_is_ended(folder: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    with paused(kept), watching(folder) as watcher:
        watcher.await_state("converged", other.name)
        answer = watcher.await_state("paused", kept.name)
        assert answer.sandboxes[kept.name]["detail"].startswith("lunch, until ")
        watcher.await_good()
        # It did not even get what its manifest says at the start.
        assert is_on_host(kept.device)
        assert reconciler("pause", kept.name, "--end").stdout == f"{kept.name}: no longer paused\n"
        watcher.await_state("converged", kept.name)
        assert kept.is_as_written()
        assert reconciler("pause", kept.name, "--end").stdout == f"{kept.name}: was not paused\n"
        assert reconciler("pause", kept.name, "--for", "1h").returncode == 0
        watcher.await_state("paused", kept.name)
        delete(kept)
        delete(other)
        watcher.until(other.has)
        assert not kept.has()
        assert reconciler("pause", kept.name, "--for", "1s").returncode == 0
        watcher.until(kept.has, "the pause is over")


@contextmanager
def paused(kept: Kept) -> Iterator[None]:
    assert reconciler("pause", kept.name, "--for", "1h", "--reason", "lunch").returncode == 0
    try:
        yield
    finally:
        reconciler("pause", kept.name, "--end")


def test_a_rollout_stops_at_a_failure_and_goes_on_when_it_is_mended(folder: Path, keep: Keep) -> None:
    first, second, third, fourth = all_kept = [keep() for _ in range(4)]
    names = [kept.name for kept in all_kept]
    with watching(folder, "--at-once", "1", "--stop-after-failures", "1") as watcher:
        watcher.await_state("converged", *names)
        with at_once(folder):
            for kept in all_kept:
                kept.write(routes=[ROUTE, OTHER, *([REFUSED] if kept is second else [])])
        watcher.until(lambda: watcher.status().alarms, "an alarm")
        answer = watcher.status()
        assert answer.code == 1
        (alarm,) = answer.alarms
        assert alarm == (
            f"the rollout stopped because {second.name} failed; 2 changed manifests still to apply; "
            "it continues when any manifest changes"
        )
        states = [answer.sandboxes[name]["state"] for name in names]
        assert states == ["converged", "failed", "pending", "pending"]
        # What does not depend on the failure is kept.
        assert [kept.has("10.9.0.0/16") for kept in all_kept] == [True, True, False, False]
        # What has not been changed is kept as it was.
        delete(third)
        watcher.until(third.has)
        assert not third.has("10.9.0.0/16")
        second.write(routes=[ROUTE, OTHER])
        watcher.until(lambda: all(kept.has("10.9.0.0/16") for kept in all_kept))
        watcher.await_state("converged", *names)
        assert watcher.await_good().alarms == []
        order = [each["sandbox"] for each in watcher.events("applied", cause="manifest")]
        assert order[:2] == [first.name, second.name]
        assert sorted(order[2:]) == sorted([third.name, fourth.name])
        alarms = [(each["failed"], each["waiting"]) for each in watcher.events("alarm", rollout="stopped")]
        assert alarms == [(second.name, 2)]


def test_an_edit_during_a_rollout_does_not_let_the_next_one_begin(folder: Path, keep: Keep) -> None:
    slow, waiting, edited = keep(veth=True), keep(), keep()
    ip("link", "set", "dev", slow.peer, "up")
    with watching(folder, "--at-once", "1") as watcher:
        watcher.await_state("converged", slow.name, waiting.name, edited.name)
        # It is through when duplicate address detection is.
        (interface,) = slow.sections["interfaces"]
        slow.write(interfaces=[interface | {"addresses": ["10.0.0.2/16", "fd00::2/64"]}])
        waiting.write(routes=[ROUTE, OTHER])
        watcher.until(lambda: "fd00::2/64" in slow.ip("address", "show", "dev", "eth0"))
        edited.write(routes=[ROUTE, OTHER])
        watcher.until(lambda: len(watcher.events("applied", cause="manifest")) == 3)
        order = [each["sandbox"] for each in watcher.events("applied", cause="manifest")]
        assert order == [slow.name, waiting.name, edited.name]


@contextmanager
def fighting(kept: Kept, dest: str = "10.8.0.0/16") -> Iterator[None]:
    """Delete a route ten times a second."""
    ended = threading.Event()

    def fight() -> None:
        while not ended.wait(0.1):
            subprocess.run(["ip", "-n", kept.name, "route", "del", dest], capture_output=True, check=False)

    thread = threading.Thread(target=fight)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_in_a_fight_repairs_are_few_and_all_else_is_repaired_at_once(folder: Path, keep: Keep) -> None:
    kept = keep()
    kept.write(routes=[ROUTE, OTHER])
    command = "ip route add 10.8.0.0/16 via 10.0.0.1 dev eth0 proto 200"
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        with fighting(kept):
            watcher.until(lambda: len(repairs(watcher, command)) == 3)
            # It is away again and not put back for nine seconds, which is known.
            watcher.until(lambda: watcher.state(kept.name) in {"drifted", "fighting"})
            delete(kept, "10.9.0.0/16")
            watcher.until(lambda: kept.has("10.9.0.0/16"))
            other = "ip route add 10.9.0.0/16 via 10.0.0.1 dev eth0 proto 200"
            watcher.until(lambda: repairs(watcher, other))
            answer = watcher.await_state("fighting", kept.name)
            # It does not wait as long as the other one.
            assert repairs(watcher, other)[0]["time"] < repairs(watcher, command)[3]["time"]
        assert answer.code == 1
        assert answer.sandboxes[kept.name]["fights"] == [command]
        assert answer.sandboxes[kept.name]["detail"] == (
            f"another program keeps reverting a repair, made 4 times so far: {command}"
        )
        assert 4 <= len(repairs(watcher, command)) <= 5
        # A new manifest is a new begin.
        kept.write(routes=[ROUTE, OTHER, THIRD])
        watcher.until(kept.has)
        watcher.await_state("converged", kept.name)


def repairs(watcher: Running, command: str) -> list[dict[str, Any]]:
    return [each for each in watcher.events("repaired") if command in each["first"].split("; ")]


def has_repaired(watcher: Running, times: int) -> bool:
    return len(watcher.events("repaired")) >= times


def test_one_object_that_fails_does_not_stop_the_others(folder: Path, keep: Keep) -> None:
    """The default route is back at once each time, and neither comes nor goes with the tries of the other one."""
    kept = keep()
    default = {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"}
    kept.write(routes=[default, ROUTE, REFUSED])
    failing = "ip route add 192.168.9.0/24 via 10.0.0.1 dev eth0 src 198.51.100.77 proto 200"
    with watching(folder, "--metrics", "0") as watcher:
        watcher.until(lambda: kept.has("default") and kept.has())
        detail = watcher.await_state("failed", kept.name).sandboxes[kept.name]["detail"]
        assert failing in detail
        assert "Invalid prefsrc address" in detail
        with monitored_routes(kept.name) as changes:
            changes()
            watcher.await_tries(4)
            assert changes() == []
            repaired = len(watcher.events("repaired"))
            for number in range(repaired, repaired + 3):
                # The tries of the other one are far apart by now; the second and the third repair wait 1 s and 3 s.
                delete(kept, "default")
                until(lambda: kept.has("default"), seconds=BEFORE_THE_FIFTH)
                # A look is to find it there before it goes again.
                watcher.until(partial(has_repaired, watcher, number + 1))
        assert watcher.state(kept.name) == "failed"
        assert len(watcher.events("failed")) == 1
        kept.write(routes=[default, ROUTE])
        watcher.await_state("converged", kept.name)


def test_what_a_missing_device_does_not_concern_is_repaired(folder: Path, keep: Keep, kernel: Kernel) -> None:
    kept = keep()
    missing = nic(f"{kernel.prefix}x", "eth1", 1)
    with watching(folder, "--metrics", "0") as watcher:
        watcher.await_state("converged", kept.name)
        through = {"dest": "10.10.0.0/16", "gateway": "10.1.0.1", "device": "eth1"}
        kept.write(routes=[ROUTE, OTHER, through], interfaces=[*kept.sections["interfaces"], missing])
        watcher.until(lambda: kept.has("10.9.0.0/16"))
        answer = watcher.await_state("failed", kept.name)
        assert f"{kernel.prefix}x: no such device on this host" in answer.sandboxes[kept.name]["detail"]
        watcher.await_tries(4)
        delete(kept)
        until(kept.has, seconds=BEFORE_THE_FIFTH)
        ip("tuntap", "add", missing["device"], "mode", "tap")
        kernel.adopt(missing["device"])
        until(lambda: kept.has("10.10.0.0/16"), seconds=BEFORE_THE_FIFTH)
        watcher.await_state("converged", kept.name)


def test_what_hangs_on_a_repair_that_waits_does_not_fail(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_quiet()
        kept.ip("link", "set", "eth0", "name", "eth7")
        watcher.until(kept.is_as_written)
        # The second time it has to wait, and there is no eth0 meanwhile.
        kept.ip("link", "set", "eth0", "name", "eth7")
        kept.ip("address", "flush", "dev", "eth7")
        watcher.until(kept.is_as_written)
        watcher.await_state("converged", kept.name)
        assert [each["reason"] for each in watcher.events("failed")] == []


def test_sighup_has_all_looked_at_again(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_quiet()
        before = watcher.status().sandboxes[kept.name]["looked"]
        watcher.signal(signal.SIGHUP)
        watcher.await_event("reload")
        watcher.until(lambda: watcher.status().sandboxes[kept.name]["looked"] > before)
        assert watcher.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_ends_well(number: int, folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.signal(number)
        assert watcher.process.wait(END) == 0
        assert watcher.lines()[-1]["event"] == "stopped"
        assert "unfinished" not in watcher.lines()[-1]
    assert not Path(SOCKET).exists()
    ran = reconciler("status")
    # It may have found a change of another test that was not confirmed, and says so first.
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (
        2,
        "reconciler: no watcher runs on this host; `reconciler watch PATH…` starts one",
    )
    assert kept.is_as_written()


def test_a_second_watcher_is_refused(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        ran = reconciler("watch", str(folder))
        assert (ran.returncode, ran.stdout, ran.stderr) == (
            2,
            "",
            "reconciler: another watcher runs on this host already; `reconciler status` shows its sandboxes\n",
        )
        assert watcher.state(kept.name) == "converged"


def test_an_apply_by_hand_works_meanwhile_and_drift_is_what_it_is(folder: Path, tmp_path: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_quiet()
        other = tmp_path / "by-hand.yaml"
        other.write_text(kept.file.read_text().replace("10.8.0.0/16", "10.9.0.0/16"))
        ran = reconciler("apply", str(other))
        assert ran.returncode == 0
        errors = [line for line in ran.stderr.splitlines() if ": warning: " not in line]
        assert errors == [f"{kept.name}: `reconciler watch` will revert whatever differs from {kept.file}"]
        assert "applied 2 operations" in ran.stdout
        watcher.until(lambda: kept.has() and not kept.has("10.9.0.0/16"))
        assert not watcher.events("failed")
        watcher.await_state("converged", kept.name)


def test_killed_and_started_again_it_converges(folder: Path, keep: Keep) -> None:
    kept = keep()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.kill()
    assert Path(SOCKET).exists()
    assert reconciler("status").returncode == 2
    kept.ip("address", "flush", "dev", "eth0")
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        assert kept.is_as_written()
        assert watcher.stop() == 0
    assert not Path(SOCKET).exists()


def test_a_watcher_keeps_no_namespace_alive(folder: Path, keep: Keep) -> None:
    kept = keep(veth=True)
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_quiet()
        assert is_on_host(kept.peer)
        kept.end()
        assert not is_on_host(kept.peer)
        watcher.await_state("waiting", kept.name)


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_a_path_that_leads_to_no_namespace_ends_no_watch(kind: str, folder: Path, tmp_path: Path, keep: Keep) -> None:
    kept, bad = keep(), tmp_path / "bad"
    if kind == "file":
        bad.touch()
    else:
        os.mkfifo(bad)
    put(
        folder / "bad.yaml",
        f"apiVersion: reconciler/v1\nsandbox: bad\ndriver: {{netns: {{path: {bad}}}}}\nroutes: []\n",
    )
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_state("failed", "bad")
        watcher.await_quiet()
        delete(kept)
        watcher.until(kept.has)
        assert watcher.stop() == 0


def test_a_sandbox_that_moves_to_another_namespace(folder: Path, keep: Keep, kernel: Kernel) -> None:
    kept, target = keep(), kernel.namespace()
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        device = kernel.tap()
        put(
            kept.file,
            kept.file.read_text().replace(f"name: {kept.name}", f"name: {target}").replace(kept.device, device),
        )
        watcher.await_event("applied", sandbox=kept.name, cause="manifest")
        assert watcher.status().sandboxes[kept.name]["driver"] == f"netns {target}"
        assert "10.8.0.0/16" in ip("route", namespace=target)
        watcher.await_quiet()
        ip("route", "del", "10.8.0.0/16", namespace=target)
        watcher.until(lambda: "10.8.0.0/16" in ip("route", namespace=target))


def test_metrics_say_what_is_converged(folder: Path, keep: Keep) -> None:
    kept, waiting, failing = keep(), keep(), keep()
    waiting.end()
    failing.write(routes=[ROUTE, REFUSED])
    put(folder / "broken.yaml", "apiVersion: reconciler/v1\nsandbox: a\n")
    said = {
        f'reconciler_converged{{sandbox="{kept.name}"}} 1.0',
        f'reconciler_converged{{sandbox="{waiting.name}"}} 0.0',
        f'reconciler_repairs_total{{sandbox="{kept.name}"}} 1.0',
        'reconciler_sandboxes{state="waiting"} 1.0',
        "reconciler_alarms 0.0",
        "reconciler_manifest_problems 1.0",
        'reconciler_errors_total{kind="manifest"} 1.0',
        'reconciler_errors_total{kind="defect"} 0.0',
        'reconciler_apply_duration_seconds_count{cause="drift",driver="netns"} 1.0',
    }
    with watching(folder, "--metrics", "127.0.0.1:0") as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_state("waiting", waiting.name)
        watcher.await_state("failed", failing.name)
        delete(kept)
        watcher.await_event("repaired", sandbox=kept.name)
        # What a look did is counted a moment after it is logged.
        watcher.until(lambda: said <= set(watcher.metrics()), f"{said}")
        watcher.until(lambda: all(counted(watcher, series) >= least for series, least in LEAST.items()), f"{LEAST}")
        port = watcher.await_event("metrics")["port"]
        # Of the sandbox that waits, enough is known.
        for probe in ("healthz", "readyz"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{probe}", timeout=END) as answer:
                assert (answer.status, answer.read()) == (200, b"ok\n")


# What fails is tried again and again.
LEAST = {
    'errors_total{kind="sandbox_gone"}': 1,
    'errors_total{kind="apply"}': 1,
    'apply_duration_seconds_count{cause="start",driver="netns"}': 2,
    'look_duration_seconds_count{driver="netns",kind="full",result="failed"}': 2,
}


def counted(watcher: Running, series: str) -> float:
    """Return the value of a series; 0 before it has one."""
    found = (line for line in watcher.metrics() if line.startswith(f"reconciler_{series} "))
    return float(next(found, "0").split()[-1])


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_status_names_the_commit_that_is_checked_out(folder: Path, tmp_path: Path, keep: Keep) -> None:
    kept, other = keep(), keep()
    for words in ("init --quiet", "add .", "commit --quiet --message one"):
        git(folder, *words.split())
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(folder), str(clone))
    with watching(clone) as watcher:
        answer = watcher.await_state("converged", kept.name, other.name)
        assert {each["revision"] for each in answer.sandboxes.values()} == {head(clone)}
        kept.write(routes=[ROUTE, OTHER])
        git(folder, "commit", "--quiet", "--all", "--message", "two")
        git(clone, "pull", "--quiet")
        event = watcher.await_event("applied", sandbox=kept.name, cause="manifest")
        assert event["revision"] == head(clone)
        answer = watcher.status()
        assert {each["revision"] for each in answer.sandboxes.values()} == {head(clone)}


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_status_names_a_commit_that_changes_no_manifest(folder: Path, keep: Keep) -> None:
    kept = keep()
    for words in ("init --quiet", "add .", "commit --quiet --message one"):
        git(folder, *words.split())
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        # What is edited is in force before it is committed.
        kept.write(routes=[ROUTE, OTHER])
        watcher.until(lambda: kept.has("10.9.0.0/16"))
        git(folder, "commit", "--quiet", "--all", "--message", "two")
        watcher.until(lambda: watcher.status().sandboxes[kept.name]["revision"] == head(folder))


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "--short", "HEAD").strip()


def test_a_refused_manifest_leaves_in_force_what_held_before(kernel: Kernel, tmp_path: Path) -> None:
    kept = Kept(kernel, tmp_path / "manifests", 0)
    many = [ROUTE | {"dest": f"10.20.{number}.0/24"} for number in range(30)]
    kept.write(routes=[ROUTE, *many])
    with watching(tmp_path / "manifests") as running:
        running.await_state("converged", kept.name)
        kept.write(routes=[ROUTE])
        running.await_state("refused", kept.name)
        kept.ip("route", "del", "10.20.7.0/24")
        running.until(lambda: kept.has("10.20.7.0/24"), "what held before")
        assert kept.has("10.20.29.0/24")
