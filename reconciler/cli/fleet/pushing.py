"""Carries out a push, a rollback, or only shows it; all three propose in the same way."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from reconciler.cli.fleet.connection import with_store
from reconciler.cli.fleet.releases import find_release
from reconciler.cli.fleet.waiting import wait_for
from reconciler.cli.output import Line, Painted, say, warn
from reconciler.errors import RefusedError
from reconciler.fleet.known import Known, read_known, read_plans, read_release
from reconciler.fleet.proposal import Change, Proposal, propose
from reconciler.fleet.push import Files, Terms, push, pushing
from reconciler.fleet.records import Release
from reconciler.fleet.store import Store
from reconciler.fleet.tree import Tree, plan_of, read_tree
from reconciler.history.author import person
from reconciler.safety import Allowance
from reconciler.wording import plural

# Changes of one host, and hosts, that are printed.
_CHANGES, _HOSTS = 20, 50
_SIGNS = {">": "+", "<": "-"}
Propose = Callable[[Known], Proposal]


def push_tree(arguments: argparse.Namespace) -> int:
    """Push a tree, or show what that would do."""

    async def work(store: Store) -> int:
        known = await read_known(store)
        tree = await asyncio.to_thread(read_tree, arguments.tree, known.plans)
        checked = _expecting(_proposing(tree, arguments.allow_delete), arguments.expect)
        if arguments.dry_run:
            _show(checked(known), color=arguments.color)
            return 0
        files = {host: found.files for host, found in tree.hosts.items()}
        return await _carry_out(store, checked, files, _terms(arguments, tree.roots), arguments)

    return with_store(arguments, work)


def diff_tree(arguments: argparse.Namespace) -> int:
    """Show what a push of a tree would do, also if it would be refused for its deletions."""

    async def work(store: Store) -> int:
        known = await read_known(store)
        tree = await asyncio.to_thread(read_tree, arguments.tree, known.plans)
        proposal = _proposing(tree, Allowance())(known)
        _show(proposal, color=arguments.color)
        try:
            _proposing(tree, None)(known)
        except RefusedError as error:
            warn(f"reconciler: `fleet push` would be refused: {error.lines[0]}", *error.lines[1:])
        return int(proposal.plans != known.plans)

    return with_store(arguments, work)


def restore(arguments: argparse.Namespace) -> int:
    """Push the plans of an earlier release."""

    async def work(store: Store) -> int:
        name = await find_release(store, arguments.release)
        release = await read_release(store, name)
        if not release.plans:
            raise RefusedError(
                f"what release {name} said is not kept any more; check out its commit {release.commit[:12]}, and push"
            )
        wanted = await read_plans(store, release.plans)

        def proposing(known: Known) -> Proposal:
            there = {host: plan for host, plan in wanted.items() if host in known.hosts}
            return propose(known, there, release.commit, arguments.allow_delete)

        terms = _terms(arguments, release.roots)._replace(restores=name)
        return await _carry_out(store, proposing, {}, terms, arguments)

    return with_store(arguments, work)


def _proposing(tree: Tree, allowance: Allowance | None) -> Propose:
    wanted = {host: plan_of(found, tree.commit) for host, found in tree.hosts.items()}

    def proposing(known: Known) -> Proposal:
        _check_repository(tree, known.release, allowance)
        return propose(known, wanted, tree.commit, allowance)

    return proposing


def _expecting(proposing: Propose, expected: str | None) -> Propose:
    """Return what raises RefusedError if a proposal does not have the expected fingerprint, if any."""

    def checked(known: Known) -> Proposal:
        proposal = proposing(known)
        if expected and proposal.fingerprint != expected:
            raise RefusedError(
                f"the fingerprint is {proposal.fingerprint} now, not {expected}: the tree or the fleet has changed "
                "since; look again with `reconciler fleet diff`"
            )
        return proposal

    return checked


def _check_repository(tree: Tree, release: Release | None, allowance: Allowance | None) -> None:
    """Raise RefusedError if a tree has no history in common with the last release."""
    if release is None or not release.roots or not tree.roots or set(release.roots) & set(tree.roots):
        return
    if allowance != Allowance():
        raise RefusedError(
            f"{tree.path} is of another repository than release {release.name}: they have no commit in common. "
            "If it is meant to replace that one: --allow-delete all"
        )


def _terms(arguments: argparse.Namespace, roots: tuple[str, ...]) -> Terms:
    who = person("fleet")
    name = str(who.get("sudo_user") or who.get("login") or who["user"])
    return Terms(arguments.waves, arguments.bake, arguments.stop_after, name, roots)


async def _carry_out(
    store: Store, proposing: Propose, files: Files, terms: Terms, arguments: argparse.Namespace
) -> int:
    async with pushing(store, terms.who) as mine:
        release = await push(store, mine, proposing, files, terms)
    if release is None:
        rollout = (await read_known(store)).rollout
        if rollout is None:
            say("nothing to do: no host has anything")
            return 0
        say(f"nothing to do: this is release {rollout.release} already, which is {rollout.state}")
        return await wait_for(store, rollout.release) if arguments.wait else 0
    count = sum(map(len, release.waves))
    waves = f" in {len(release.waves)} waves" if len(release.waves) > 1 else ""
    say(f"release {release.name}: {count:,} {plural('host', count)}{waves}. Fingerprint {release.fingerprint}")
    return await wait_for(store, release.name) if arguments.wait else 0


def _show(proposal: Proposal, *, color: bool) -> None:
    say(*_lines(proposal), color=color)


def _lines(proposal: Proposal) -> Iterator[Line]:
    """Yield what a push would do: the changes of each host, and a sum."""
    hosts = list(dict.fromkeys(each.host for each in proposal.changes))
    for host in hosts[:_HOSTS]:
        yield host
        yield from _of_host([each for each in proposal.changes if each.host == host])
    if len(hosts) > _HOSTS:
        yield f"… {len(hosts) - _HOSTS:,} more hosts"
    only_told = len(set(proposal.told) - set(hosts))
    if hosts:
        yield ""
    if hosts and only_told:
        yield f"{only_told:,} more {plural('host', only_told)}: not told yet what an earlier push said"
    signs = Counter(each.sign for each in proposal.changes)
    yield (
        f"{len(hosts):,} {plural('host', len(hosts))}: {signs['+']:,} sandboxes to add, {signs['~']:,} to change, "
        f"{signs['-']:,} to delete, {signs['>']:,} to move. Fingerprint {proposal.fingerprint}"
    )


def _of_host(changes: Sequence[Change]) -> Iterator[Line]:
    for each in changes[:_CHANGES]:
        way = {">": f" from {each.other}", "<": f" to {each.other}"}.get(each.sign, "")
        yield Painted(f"  {each.sign} {each.sandbox}{way}", _SIGNS.get(each.sign, each.sign))
    if len(changes) > _CHANGES:
        yield f"  … {len(changes) - _CHANGES:,} more"
