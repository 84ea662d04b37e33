"""Refuse what is possible but unsafe: too many deletions at once, and a plan other than the reviewed one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.errors import RefusedError
from reconciler.manifest.sandbox import write
from reconciler.model.sandbox import Sandbox
from reconciler.plan import Deletion, Plan
from reconciler.values import MISSING, dataclass, fields, is_dataclass
from reconciler.wording import plural

if TYPE_CHECKING:
    from reconciler.plan.cost import Cost

# A plan may always delete ALWAYS objects of a kind; more only if they are at most SHARE percent of ours.
ALWAYS = 10
# Of the operations that cut connections, a message names so many.
_SHOWN = 5
SHARE = 30


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many deletions of each kind the user allows: a count, a percentage, or both None for all of them."""

    count: int | None = None
    percent: int | None = None

    def covers(self, deletion: Deletion) -> bool:
        """Return whether so many deletions are allowed."""
        if self.count is not None:
            return deletion.count <= self.count
        return self.percent is None or deletion.count * 100 <= self.percent * deletion.total


def parse_allowance(text: str) -> Allowance:
    """Read `N`, `N%` or `all`. ValueError otherwise."""
    if text == "all":
        return Allowance()
    match = re.fullmatch(r"([0-9]{1,9})(%?)", text)
    if match is None or (match[2] and int(match[1]) > 100):
        raise ValueError(f'"{text}" is not a number such as 20, a percentage up to 100%, or "all"')
    number = int(match[1])
    return Allowance(percent=number) if match[2] else Allowance(count=number)


def check_deletions(plan: Plan, allowance: Allowance | None) -> None:
    """Raise RefusedError if a plan deletes more of a kind than is allowed, or the last default route of a family.

    `allowance` None: the default limit. A user who sets one has seen the deletions, including that of a default route.
    """
    over = [deletion for deletion in plan.deletions if _exceeds(deletion, allowance)]
    reasons = [_deletion_words(each) for each in over]
    if allowance is None:
        reasons += [f"the last {family} default route" for family in plan.lost_defaults]
    if reasons:
        limit = ""
        if over and allowance is not None:
            limit = "; that is not allowed"
        elif not all(map(_is_all, over)):
            limit = f"; the limit is {SHARE} % (and always {ALWAYS})"
        raise RefusedError(
            f"this would delete {' and '.join(reasons)}{limit}.",
            more=["Look again with `reconciler diff`; if it is what you want: --allow-delete all"],
        )


def check_cut(cost: Cost | None, most: int) -> None:
    """Raise RefusedError if a plan cuts, or could cut, more than so many connections. None: it can cut none."""
    if cost is None or (cost.total.most is not None and cost.total.most <= most):
        return
    worst = sorted(cost.cuts, key=lambda each: (cost.cuts[each].most is not None, -(cost.cuts[each].most or 0)))
    lines = [f"  {each.command}: {words}" for each in worst[:_SHOWN] if (words := cost.cuts[each].count_words())]
    raise RefusedError(
        f"this plan {cost.total.words()}, and --max-cut allows {most:,}.",
        more=[*lines, "Nothing was changed. Wait until they have ended, or allow more with --max-cut."],
    )


def _deletion_words(deletion: Deletion) -> str:
    kind = plural(deletion.kind, deletion.total)
    if not _is_all(deletion):
        return f"{deletion.count:,} of {deletion.total:,} {kind}"
    return f"all {deletion.total:,} {kind}" if deletion.total > 1 else f"the only {kind}"


def _is_all(deletion: Deletion) -> bool:
    return deletion.never_all and deletion.count == deletion.total


def _exceeds(deletion: Deletion, allowance: Allowance | None) -> bool:
    if allowance is None:
        if _is_all(deletion):
            return True
        return deletion.count > ALWAYS and deletion.count * 100 > SHARE * deletion.total
    return not allowance.covers(deletion)


def fingerprint(desired: Sandbox, observed: Sandbox, plan: Plan) -> str:
    """Return a short hash of observed, desired and plan: it changes when any of them does.

    Fields with their default are left out. So a new field does not change the fingerprint of a manifest without it.
    """
    # Its import costs as much as reading a small manifest, and most diffs find nothing.
    from hashlib import sha256

    parts = [canonical(write(desired)), canonical(write(observed))]
    parts += sorted(canonical([each.kind, plain(each)]) for each in plan.operations)
    return _grouped(sha256("\n".join(parts).encode()).hexdigest())


def plain(value: Any) -> Any:
    """Return dataclasses and named tuples as mappings of those fields that do not have their default."""
    if is_dataclass(value):
        return _without_defaults((each.name, getattr(value, each.name), each.default) for each in fields(value))
    if isinstance(value, tuple) and (names := getattr(value, "_fields", ())):
        defaults: dict[str, Any] = getattr(value, "_field_defaults", {})
        return _without_defaults(
            (name, item, defaults.get(name, MISSING)) for name, item in zip(names, value, strict=True)
        )
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return value.hex() if isinstance(value, bytes) else value


def _without_defaults(fields_: Iterable[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Return (name, value, default) as a mapping, without fields that have their default."""
    return {name: plain(value) for name, value, default in fields_ if value != default}


def canonical(data: Any) -> str:
    """Return data as text that does not depend on the order of mappings in lists.

    Kernels list objects in any order.
    """
    import json

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: ordered(item) for name, item in value.items()}
        if not isinstance(value, list):
            return value
        items = [ordered(each) for each in value]
        return sorted(items, key=json.dumps) if all(isinstance(each, dict) for each in items) else items

    return json.dumps(ordered(data), sort_keys=True, separators=(",", ":"))


def combine(fingerprints: Sequence[str]) -> str:
    """Return one fingerprint for several sandboxes; for a single one, its own."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    from hashlib import sha256

    return _grouped(sha256(" ".join(sorted(fingerprints)).encode()).hexdigest())


def _grouped(digest: str) -> str:
    return f"{digest[:4]}-{digest[4:8]}-{digest[8:12]}"
