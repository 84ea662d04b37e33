"""What a push would do: which sandboxes of which hosts it changes, and whether it may. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from reconciler.errors import RefusedError
from reconciler.fleet.known import Known
from reconciler.fleet.records import Desired, HostRecord, Plan, encode
from reconciler.fleet.store import MAX_BYTES
from reconciler.plan import Deletion
from reconciler.safety import ALWAYS, SHARE, Allowance, canonical, combine
from reconciler.values import NamedTuple, replace
from reconciler.wording import plural

# Names of a message.
_LISTED = 10


class Change(NamedTuple):
    """What becomes of one sandbox of a host: `+` new, `~` changed, `-` deleted, `>` arrives, `<` leaves.

    `other`: the host that it comes from or goes to.
    """

    host: str
    sign: str
    sandbox: str
    other: str = ""


class Proposal(NamedTuple):
    """What a push would do.

    `plans`: the plan of each host. Those that stay have the name of their release, the others none. `told`: the hosts
    that are to be told something, in waves. `fingerprint`: it changes when anything of this does.
    """

    base: str
    commit: str
    plans: dict[str, Plan]
    told: list[str]
    changes: list[Change]
    fingerprint: str


def propose(known: Known, wanted: Mapping[str, Plan], commit: str, allowance: Allowance | None) -> Proposal:
    """Return what it takes until each host has its wanted plan. RefusedError if that is unsafe."""
    _check_hosts(known, wanted)
    wanted = dict(wanted)
    # A host that is not wanted any more is told so, once.
    wanted |= {host: Plan("", commit) for host in known.plans if host not in wanted and host in known.hosts}
    changes = list(_changes(known.plans, wanted))
    _check_deletions(known, wanted, changes, allowance)
    holders = _holders(known)
    plans = {host: _settle(known, host, plan, commit, holders) for host, plan in sorted(wanted.items())}
    told = [host for host, plan in plans.items() if not _is_told(plan, known.desired.get(host))]
    texts = [canonical([host, plan.sandboxes, plan.files]) for host, plan in plans.items()]
    return Proposal(known.name, commit, plans, told, changes, combine([f"base {known.name}", *texts]))


def _is_told(plan: Plan, desired: Desired | None) -> bool:
    return desired is not None and desired.release == plan.release


def _settle(known: Known, host: str, plan: Plan, commit: str, holders: Mapping[str, str]) -> Plan:
    """Return the plan of a host: that which it has already if it is the same, or a new one."""
    told, base, is_strange = known.desired.get(host), known.plans.get(host), host in known.strange
    if base and _same(plan, base) and not is_strange:
        return base
    if told and not told.withheld and _same(plan, told) and not is_strange:
        return replace(plan, release=told.release, commit=told.commit)
    before = told.sandboxes if told else {}
    changed = tuple(name for name, digest in plan.sandboxes.items() if before.get(name) != digest)
    awaited = {name: holders[name] for name in plan.sandboxes if holders.get(name, host) != host}
    _check_places(host, plan, awaited)
    made = replace(plan, release="", commit=commit, changed=changed, awaited=awaited)
    if len(encode(made)) > MAX_BYTES // 2:
        raise RefusedError(f"host {host} has {len(plan.sandboxes):,} sandboxes, which is too many for one host")
    return made


def _same(plan: Plan, other: Plan | Desired) -> bool:
    return plan.sandboxes == other.sandboxes and plan.files == other.files


def _holders(known: Known) -> dict[str, str]:
    """Return sandbox → the host that may have it: one that was told it, or one that was awaited and still is."""
    found = {name: host for plan in known.plans.values() for name, host in plan.awaited.items()}
    found |= {name: host for desired in known.desired.values() for name, host in desired.withheld.items()}
    found |= {name: host for host, desired in known.desired.items() for name in desired.sandboxes}
    return found


def _check_places(host: str, plan: Plan, awaited: Mapping[str, str]) -> None:
    """Raise RefusedError if a sandbox that comes from another host is in a file with one that does not."""
    files = {plan.places.get(name) for name in awaited}
    for name in plan.sandboxes:
        if name not in awaited and (file := plan.places.get(name)) in files:
            moving = next(each for each in awaited if plan.places.get(each) == file)
            raise RefusedError(
                f"{moving} moves from {awaited[moving]} to {host}, into the file {file}, where {name} is as well; "
                f"{host} gets that file once {moving} has left {awaited[moving]}, so {moving} needs a file of its own"
            )


def _changes(before: Mapping[str, Plan], after: Mapping[str, Plan]) -> Iterator[Change]:
    """Yield what becomes of each sandbox, by host and name."""
    had = {name: host for host, plan in before.items() for name in plan.sandboxes}
    has = {name: host for host, plan in after.items() for name in plan.sandboxes}
    for host in sorted({*before, *after}):
        old = before[host].sandboxes if host in before else {}
        new = after[host].sandboxes if host in after else {}
        for name in sorted({*old, *new}):
            if name not in new:
                yield Change(host, "<", name, has[name]) if name in has else Change(host, "-", name)
            elif name not in old:
                yield Change(host, ">", name, had[name]) if name in had else Change(host, "+", name)
            elif old[name] != new[name]:
                yield Change(host, "~", name)


def _check_hosts(known: Known, wanted: Mapping[str, Plan]) -> None:
    """Raise RefusedError if the tree names hosts that nobody has added: it may be that of something else."""
    if unknown := [host for host in wanted if host not in known.hosts]:
        raise RefusedError(
            f"this tree has {len(unknown):,} {plural('folder', len(unknown))} of no host of this fleet: "
            f"{_listed(unknown)}. Add each with `reconciler fleet host add NAME`, if it is the right tree"
        )


def _check_deletions(
    known: Known, wanted: Mapping[str, Plan], changes: Sequence[Change], allowance: Allowance | None
) -> None:
    """Raise RefusedError if too much would be deleted: sandboxes, or all that a host has.

    By default, no host may lose all of its sandboxes: people who mean it have fenced it, removed it, or say so.
    """
    total = sum(len(plan.sandboxes) for plan in known.plans.values())
    sandboxes = Deletion(kind="sandbox", count=sum(each.sign == "-" for each in changes), total=total)
    had = [host for host, plan in known.plans.items() if plan.sandboxes and not _is_given_up(known.hosts.get(host))]
    emptied = [host for host in had if not (host in wanted and wanted[host].sandboxes)]
    hosts = Deletion(kind="host", count=len(emptied), total=len(had))
    wrong = [each for each in (sandboxes, hosts) if each.count and _exceeds(each, allowance)]
    if not wrong:
        return
    words = " and ".join(f"{each.count:,} of {each.total:,} {plural(each.kind, each.total)}" for each in wrong)
    limit = f"the limit is {SHARE} % of the sandboxes (and always {ALWAYS}), and no host" if allowance is None else ""
    raise RefusedError(
        f"this would delete {words}{f'; {limit}' if limit else '; that is not allowed'}.",
        more=[
            *([f"Hosts that would have nothing left: {_listed(emptied)}"] if hosts in wrong else []),
            "Look again with `reconciler fleet diff`; if it is what you want: --allow-delete all",
        ],
    )


def _is_given_up(host: HostRecord | None) -> bool:
    return host is None or host.fenced


def _exceeds(deletion: Deletion, allowance: Allowance | None) -> bool:
    if allowance is not None:
        return not allowance.covers(deletion)
    return deletion.kind == "host" or (deletion.count > ALWAYS and deletion.count * 100 > SHARE * deletion.total)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def parse_waves(text: str) -> tuple[str, ...]:
    """Read `1,5%,25%,100%`: how many hosts have been told after each wave. ValueError if it is not of that form."""
    parts = tuple(text.split(","))
    for each in parts:
        match = re.fullmatch(r"([1-9][0-9]{0,5})(%?)", each)
        if match is None or (match[2] and int(match[1]) > 100):
            raise ValueError(f'"{text}" is not a list of waves such as 1,5%,25%,100%')
    return parts


def waves(proposal: Proposal, sizes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the hosts of each wave, by name. `sizes`: how many have been told after each; the last one has the rest.

    Hosts between which a sandbox moves are in one wave: the one waits for the other.
    """
    groups = _groups(proposal)
    found: list[tuple[str, ...]] = []
    done, total = 0, len(proposal.told)
    for size in [*sizes, "100%"]:
        most = math.ceil(int(size[:-1]) * total / 100) if size.endswith("%") else int(size)
        wave: list[str] = []
        while groups and done + len(wave) < most:
            wave += groups.pop(0)
        if wave:
            found.append(tuple(wave))
            done += len(wave)
    return tuple(found)


def _groups(proposal: Proposal) -> list[list[str]]:
    """Return the hosts to tell, those together that exchange sandboxes."""
    group = {host: [host] for host in proposal.told}
    for host in proposal.told:
        for other in proposal.plans[host].awaited.values():
            if other in group and group[other] is not group[host]:
                joined = [*group[other], *group[host]]
                group |= dict.fromkeys(joined, joined)
    return list({id(each): sorted(each) for each in group.values()}.values())
