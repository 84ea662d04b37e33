"""What is wrong with the watcher, the manifests and the operator's policy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from reconciler.doctor.facts import WATCHER, Running
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene
from reconciler.doctor.words import command

# Seconds after which a pause was perhaps forgotten.
_LONG = 3600.0
# Seconds by which clocks of processes and files may differ.
_APART = 2.0
_NEARLY = 0.8
# States that are no fault; a paused sandbox has a check of its own.
_WELL = {"converged", "draining", "paused", "new"}


def _start(scene: Scene) -> str:
    if scene.watcher.enabled:
        return "systemctl start reconciler"
    paths = sorted({box.file for box in scene.boxes if box.file and box.file != "<stdin>"})
    return command("reconciler", "watch", *paths[:3]) if paths else "systemctl enable --now reconciler"


def _restart(scene: Scene) -> str:
    if scene.watcher.enabled or not scene.watcher.pid:
        return "systemctl restart reconciler"
    return f"{command('kill', str(scene.watcher.pid))} && {_start(scene)}"


def _gone(scene: Scene) -> Iterator[Hit]:
    found = scene.watcher
    if found.running is Running.KILLED:
        yield Hit(WATCHER, "the watcher was killed: its socket is there, and nobody serves it", _start(scene))
    elif found.running is Running.NO and found.enabled:
        yield Hit(WATCHER, "no watcher runs, although its unit is enabled", _start(scene))


def _absent(scene: Scene) -> Iterator[Hit]:
    if scene.watcher.running is Running.NO and not scene.watcher.enabled:
        yield Hit(WATCHER, "no watcher runs on this host", _start(scene))


def _silent(scene: Scene) -> Iterator[Hit]:
    if scene.watcher.running is Running.SILENT:
        yield Hit(WATCHER, f"the watcher does not answer: {scene.watcher.words}", _restart(scene))


def _alarms(scene: Scene) -> Iterator[Hit]:
    for words in scene.watcher.data.get("alarms", ()):
        yield Hit(WATCHER, str(words), "reconciler status")


def _problems(scene: Scene) -> Iterator[Hit]:
    for words in scene.watcher.data.get("problems", ()):
        file = str(words).partition(":")[0]
        yield Hit(WATCHER, str(words), command("reconciler", "validate", file))


def _polling(scene: Scene) -> Iterator[Hit]:
    if why := scene.watcher.data.get("polling"):
        yield Hit(WATCHER, f"changes of manifests are not reported by inotify: {why}", "sysctl fs.inotify")


def _states(scene: Scene) -> Iterator[Hit]:
    named = {box.id for box in scene.boxes}
    for each in scene.watcher.data.get("sandboxes", ()):
        if each["sandbox"] not in named:
            continue
        detail = f": {each['detail']}" if each["detail"] else ""
        if each["state"] not in _WELL:
            fights = f" ({'; '.join(each['fights'][:3])})" if each["fights"] else ""
            words = f"the watcher says that {each['sandbox']} is {each['state']}{detail}{fights}"
            yield Hit(each["sandbox"], words, command("reconciler", "diff", each["file"]))
        elif each["looked"] and not each["fresh"] and each["state"] != "paused":
            ago = scene.watcher.now - each["looked"]
            words = f"the watcher looked at {each['sandbox']} last {ago:.0f} s ago, which is longer than it should be"
            yield Hit(each["sandbox"], words, _restart(scene))


def _paused(scene: Scene) -> Iterator[Hit]:
    named = {box.id for box in scene.boxes}
    for each in scene.watcher.data.get("sandboxes", ()):
        age = scene.watcher.now - each["since"]
        if each["state"] == "paused" and age > _LONG and each["sandbox"] in named:
            words = f"{each['sandbox']} has been paused for {age / 3600:.1f} h: {each['detail']}"
            yield Hit(each["sandbox"], words, command("reconciler", "resume", each["sandbox"]))


def _time(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _policy(scene: Scene) -> Iterator[Hit]:
    found = scene.watcher
    read = found.data.get("policy", {}).get("read", 0.0)
    if read and found.policy_changed > read + _APART:
        words = (
            f"the operator's policy was changed at {_time(found.policy_changed)}; the watcher read it at {_time(read)}"
        )
        yield Hit(WATCHER, words, command("kill", "-HUP", str(found.pid)))


def _version(scene: Scene) -> Iterator[Hit]:
    found = scene.watcher
    if found.started and found.installed > found.started + _APART:
        words = (
            f"reconciler was installed anew at {_time(found.installed)}; the watcher runs since {_time(found.started)}"
        )
        yield Hit(WATCHER, words, _restart(scene))


def _descriptors(scene: Scene) -> Iterator[Hit]:
    for pid, found in scene.watcher.descriptors.items():
        if found.share > _NEARLY:
            its = "" if pid == scene.watcher.pid else "'s process for machines"
            words = f"the watcher{its} has {found.used:,} of {found.most:,} possible descriptors open"
            yield Hit(WATCHER, words, command("prlimit", f"--pid={pid}", f"--nofile={4 * found.most}"))


def _manifests(scene: Scene) -> Iterator[Hit]:
    for each in scene.facts.broken:
        if each.readable:
            yield Hit(each.file, each.words, command("reconciler", "validate", each.file))


def _own_policy(scene: Scene) -> Iterator[Hit]:
    if scene.facts.policy:
        yield Hit("policy", scene.facts.policy, "reconciler validate /etc/reconciler/manifests")


CHECKS = (
    Check("watcher-gone", "Nothing is repaired, and no change of a manifest is applied.", "Start the watcher.", _gone),
    Check(
        "watcher-absent",
        "Drift is not repaired until the next `apply`.",
        "Start a watcher, if sandboxes are to be kept.",
        _absent,
        is_note=True,
    ),
    Check("watcher-silent", "It hangs, and nothing is repaired.", "Restart the watcher.", _silent),
    Check("watcher-alarm", "The watcher as a whole is not well.", "See the text of the alarm.", _alarms),
    Check("watcher-problem", "A manifest that is watched is not in force as it is now.", "Correct it.", _problems),
    Check(
        "watcher-polling",
        "Changes of manifests are noticed up to 2 s later.",
        "Raise the limit.",
        _polling,
        is_note=True,
    ),
    Check("watcher-state", "The watcher cannot keep the sandbox as it should be.", "See the detail.", _states),
    Check("watcher-paused", "Nothing is repaired there for as long as the pause lasts.", "End the pause.", _paused),
    Check(
        "watcher-policy",
        "The watcher may allow what the policy no longer does.",
        "Let it read the policy anew.",
        _policy,
    ),
    Check("watcher-old", "The watcher still runs the program that was replaced.", "Restart the watcher.", _version),
    Check(
        "watcher-descriptors", "It will soon fail to open sandboxes.", "Raise its limit (LimitNOFILE=).", _descriptors
    ),
    Check("manifest-wrong", "The manifest cannot be applied.", "Correct it.", _manifests),
    Check("policy-wrong", "No manifest can be applied.", "Correct the file.", _own_policy),
)
