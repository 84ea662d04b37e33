"""The whole of a run: what is to be looked at, the facts, and what the checks find in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from reconciler.doctor import host, opening, watching
from reconciler.doctor.checks import CHECKS
from reconciler.doctor.facts import HOST, WATCHER, Broken, Facts, Running, Trouble, Unknown, Watcher
from reconciler.doctor.registry import Finding
from reconciler.doctor.scene import Scene
from reconciler.drivers import namespaces
from reconciler.errors import HostError, ManifestError, ReconcilerError
from reconciler.manifest import policy as policies
from reconciler.manifest.files import SUFFIXES, is_stream
from reconciler.manifest.load import Manifest, read
from reconciler.manifest.whereabouts import place_of
from reconciler.model.policy import DEFAULTS, Policy
from reconciler.model.sandbox import NetnsAddress, Sandbox, VmAddress
from reconciler.values import NamedTuple
from reconciler.wording import select

# Where the Debian package has manifests.
MANIFESTS = "/etc/reconciler/manifests"
# Sandboxes that are read at the same time: a machine that is silent takes seconds, in which others are read.
_AT_ONCE = 16


_Target = tuple[Sandbox, Manifest | None]


class Report(NamedTuple):
    """What was found. `notes` are no faults. `sandboxes`: how many were looked at."""

    findings: list[Finding]
    notes: list[Finding]
    unknown: list[Unknown]
    sandboxes: int


def examine(words: Sequence[str], policy_file: str | None) -> Report:
    """Look at the host, the watcher, and the sandboxes of paths or with IDs; without any, at those that are watched.

    HostError if an ID is unknown.
    """
    watcher = watching.read()
    paths, ids = _sorted(words, watcher)
    policy, wrong = _policy(policy_file, paths)
    watched = _watched(watcher)
    unknown: list[Unknown] = []
    if not paths:
        paths, unknown = _paths(watcher, watched)
    manifests, problems = read(paths, policy) if paths else ([], [])
    broken = [Broken(str(each), each.file, each.line > 0 or each.refused) for each in problems]
    targets: list[_Target] = [(each.sandbox, each) for each in manifests]
    found = host.read()
    targets += [] if words and not ids else _machines(targets, unknown)
    if ids:
        known = [*(each.id for each, _ in targets), *namespaces.names()]
        # A pattern stands for several; an ID that nobody has stands for itself.
        chosen_ids = dict.fromkeys(name for each in ids for name in select([each], known) or [each])
        named = {each: _named(each, targets) for each in chosen_ids}
        lost = [each for each, target in named.items() if target is None]
        if lost and not broken:
            raise HostError(
                f'no sandbox "{lost[0]}" is watched, and no machine or namespace has this name; give its manifest'
            )
        unknown += [Unknown(each, "the sandbox", "no manifest that is right has this ID") for each in lost]
        targets = [each for each in named.values() if each]
        chosen = {each.file for _, each in targets if each}
        broken = broken if lost else [each for each in broken if each.file in chosen]
    modules = host.loaded_modules()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        boxes = tuple(pool.map(lambda each: opening.look(each[0], each[1], policy, modules), targets))
    facts = Facts(host=found, watcher=watcher, boxes=boxes, broken=tuple(broken), policy=wrong)
    return judge(facts, unknown)


def judge(facts: Facts, unknown: Iterable[Unknown] = ()) -> Report:
    """Return what the checks find in facts. `unknown`: what could not even be tried."""
    scene, found, unknown = Scene(facts), list[Finding](), [*unknown, *_unknown(facts)]
    for check in CHECKS:
        try:
            found += [Finding(check, hit) for hit in check.look(scene)]
        except Exception as error:  # noqa: BLE001 a defect of one check hides nothing that others find
            why = f"a defect of reconciler: {type(error).__name__}: {error}; please report it"
            unknown.append(Unknown("doctor", f"the check {check.name}", why))
    return Report(
        [each for each in found if not each.check.is_note],
        [each for each in found if each.check.is_note],
        unknown,
        len(facts.boxes),
    )


def _unknown(facts: Facts) -> Iterable[Unknown]:
    if not facts.host.root:
        yield Unknown(HOST, "what only root can see", "this user is not root; run the same command as root")
    yield from facts.host.unknown
    if facts.watcher.running is Running.UNKNOWN:
        yield Unknown(WATCHER, "whether a watcher runs, and what it says", facts.watcher.words)
    for each in facts.broken:
        if not each.readable:
            yield Unknown(each.file, "its manifests", each.words)
    for box in facts.boxes:
        yield from box.unknown
        if box.failure:
            yield Unknown(box.id, "the inside of the sandbox", box.failure.words)
        elif box.no_plan and box.no_plan.trouble is Trouble.HIDDEN:
            yield Unknown(box.id, "whether it matches its manifest", box.no_plan.words)


def _sorted(words: Sequence[str], watcher: Watcher) -> tuple[list[str], list[str]]:
    """Return which words are paths, and which are IDs: what is known here as a sandbox is one, whatever files exist."""
    known = {each["sandbox"] for each in watcher.data.get("sandboxes", ())} | set(namespaces.names())
    with suppress(HostError):
        known |= set(_machine_names())
    ids = [each for each in words if each in known or not (_is_path(each) or os.path.lexists(each))]
    return [each for each in words if each not in ids], ids


def _is_path(word: str) -> bool:
    return is_stream(word) or "/" in word or word.endswith(SUFFIXES)


def _machine_names() -> list[str]:
    # Most hosts have none.
    from reconciler.guest import launch

    return [each.name for each in launch.states()]


def _policy(file: str | None, paths: Sequence[str]) -> tuple[Policy, str]:
    """Return the policy, and what is wrong with its file."""
    try:
        return policies.read(file, paths), ""
    except ManifestError as error:
        return DEFAULTS, "; ".join(map(str, error.problems))
    except ReconcilerError as error:
        return DEFAULTS, str(error)


def _watched(watcher: Watcher) -> list[str]:
    """Return the files of the manifests that the watcher watches."""
    folder = watching.folder_of(watcher.pid)
    files = (each["file"] for each in watcher.data.get("sandboxes", ()))
    return list(dict.fromkeys(os.path.join(folder, each) for each in files if each))


def _paths(watcher: Watcher, watched: list[str]) -> tuple[list[str], list[Unknown]]:
    """Return the manifests to read if no path is given."""
    readable = [each for each in watched if os.path.lexists(each)]
    left = [each for each in watched if each not in readable]
    why = "the file is not there any more, or its path is relative to a folder that is not known"
    unknown = [Unknown(WATCHER, f"the manifest {each}", why) for each in left]
    if not watched and watcher.running is not Running.YES and os.path.isdir(MANIFESTS):
        readable = [MANIFESTS]
    return readable, unknown


def _machines(targets: Sequence[_Target], unknown: list[Unknown]) -> list[_Target]:
    """Return the machines of ours that no manifest describes."""
    described = {place_of(each.driver) for each, _ in targets}
    try:
        names = _machine_names()
    except HostError as error:
        unknown.append(Unknown(HOST, "which machines there are", str(error)))
        return []
    found = [Sandbox(id=name, driver=VmAddress(name=name)) for name in names]
    return [(each, None) for each in found if place_of(each.driver) not in described]


def _named(name: str, targets: Sequence[_Target]) -> _Target | None:
    """Return the sandbox with an ID: by a manifest, a machine, or else the namespace of that name; None if none has."""
    for sandbox, manifest in targets:
        if sandbox.id == name:
            return sandbox, manifest
    return (Sandbox(id=name, driver=NetnsAddress(name=name)), None) if name in namespaces.names() else None
