"""Plans and errors as text and data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.cli.output import Line, Painted
from reconciler.errors import ApplyError
from reconciler.manifest.finding import path_text
from reconciler.manifest.load import Manifest
from reconciler.manifest.sections import locate
from reconciler.operations import Operation
from reconciler.operations.listing import listed
from reconciler.preview import Preview
from reconciler.safety import combine
from reconciler.wording import plural

if TYPE_CHECKING:
    from reconciler.drivers.rehearsal import Rehearsal
    from reconciler.model.cost import Cut
    from reconciler.plan.cost import Cost

_ACTIONS = {"+": "add", "~": "change", "-": "delete"}


def render_plan(manifest: Manifest, preview: Preview, *, verbose: bool) -> list[Line]:
    """Return what would be done to a sandbox as lines with commands. Long runs of like operations are folded."""
    head = f"{manifest.sandbox.id} · {manifest.sandbox.driver} · {manifest.file}"
    operations = preview.plan.operations
    if not operations:
        draining = preview.plan.draining
        drain = f"; {draining:,} IPVS {plural('server', draining)} still draining" if draining else ""
        return [f"{head}: in sync{drain}"]
    cost = preview.cost
    lines: list[Line] = [head, *render_operations(operations, verbose=verbose, cost=cost)]
    if cost and (words := cost.total.words()):
        lines.append(f"  # {words}")
    return lines + [f"  # {words}" for words in _rehearsal_words(preview.rehearsal, len(operations))]


def _rehearsal_words(found: Rehearsal | None, count: int) -> Iterator[str]:
    """Yield what a kernel said to a plan in a copy of the sandbox, and what the copy does not have."""
    if found is None:
        return
    match found.proven:
        case True:
            done = f"{count:,} {plural('operation', count)}"
            yield f"proven: kernel {found.kernel} has carried out {done} in a copy of the sandbox"
        case False:
            yield f"NOT possible: {found.failed[0].operation.command}: {found.failed[0].reason}"
        case None:
            if found.failed:
                refused = f"{found.failed[0].operation.command}: {found.failed[0].reason}"
                yield f"not proven: kernel {found.kernel} refused in a copy of the sandbox: {refused}"
            elif found.kernel:
                yield f"not proven, although kernel {found.kernel} refused nothing in a copy of the sandbox:"
            else:
                yield "not proven, as nothing could be tried:"
    yield from (*found.untried, *found.lacks)


def refusal_lines(manifest: Manifest, found: Rehearsal) -> list[str]:
    """Return what a kernel refused of a plan in a copy of the sandbox, with its places in the manifest."""
    lines = []
    for each in found.failed:
        lines.append(f"{manifest.sandbox.id}: apply would fail: {each.operation.command}")
        lines.append(f"  {each.reason}")
        if path := locate(manifest.sandbox, each.operation.subject):
            lines.append(f"  from {manifest.where(path)}, {path_text(path)}")
    return lines


def render_operations(operations: Iterable[Operation], *, verbose: bool, cost: Cost | None = None) -> Iterator[Line]:
    """Yield operations as commands with a sign, one a line, each with what it cuts."""
    for each in listed(operations, verbose=verbose, **({"cuts": cost.cuts} if cost else {})):
        yield Painted(each.text, each.sign, after=each.comment)


def render_summary(previews: Sequence[Preview]) -> str:
    """Return the counts of what would be done to all sandboxes, and the fingerprint."""
    operations = [operation for preview in previews for operation in preview.plan.operations]
    sandboxes = f"{len(previews)} {plural('sandbox', len(previews))}"
    if not operations:
        return f"{sandboxes}: nothing to do."
    print_ = combine([preview.fingerprint for preview in previews])
    return f"{sandboxes}: {count_words(operations)}{_cut_words(previews)}. Fingerprint {print_}"


def count_words(operations: Sequence[Operation]) -> str:
    """Return how many operations of each action there are, in words."""
    count = {sign: sum(operation.sign == sign for operation in operations) for sign in _ACTIONS}
    return ", ".join(f"{number:,} to {_ACTIONS[sign]}" for sign, number in count.items())


def _cut_words(previews: Sequence[Preview]) -> str:
    costs = [each.cost for each in previews if each.cost]
    if not costs:
        return ""
    # Only a plan that can cut connections pays for the import.
    from reconciler.model.cost import together

    words = together(each.total for each in costs).count_words()
    return f"; {words}" if words else ""


def plan_data(manifest: Manifest, preview: Preview) -> dict[str, Any]:
    """Return a plan as plain data: the stable form of `diff -o json`, described in docs/cli.md."""
    return {
        "sandbox": manifest.sandbox.id,
        "driver": str(manifest.sandbox.driver),
        "file": manifest.file,
        "fingerprint": preview.fingerprint,
        "draining": preview.plan.draining,
        "operations": [_priced_data(each, preview.cost) for each in preview.plan.operations],
        **({"cuts": _cut_data(preview.cost.total)} if preview.cost else {}),
        **({"proof": _rehearsal_data(preview.rehearsal)} if preview.rehearsal else {}),
    }


def _rehearsal_data(found: Rehearsal) -> dict[str, Any]:
    return {
        "proven": found.proven,
        "kernel": found.kernel or None,
        "sandboxKernel": found.own or None,
        "failed": [{"command": each.operation.command, "reason": each.reason} for each in found.failed],
        "untried": list(found.untried),
        "lacks": list(found.lacks),
    }


def _priced_data(operation: Operation, cost: Cost | None) -> dict[str, Any]:
    data = operation_data(operation)
    return {**data, "cuts": _cut_data(cost.cuts[operation])} if cost and operation in cost.cuts else data


def _cut_data(cut: Cut) -> dict[str, Any]:
    data: dict[str, Any] = {"connections": cut.exact, "least": cut.least, "most": cut.most}
    more = {"closing": cut.closing, "persistent": cut.persistent, "unknown": list(cut.unknown)}
    return data | {name: value for name, value in more.items() if value}


def operation_data(operation: Operation) -> dict[str, str]:
    """Return an operation as plain data."""
    data = {"action": _ACTIONS[operation.sign], "operation": operation.kind, "command": operation.command}
    return {**data, "comment": operation.comment} if operation.comment else data


def render_failure(manifest: Manifest, error: ApplyError) -> list[str]:
    """Return a failed apply in lines: the operation, why it failed, its place in the manifest, what became of all."""
    lines = [f"{manifest.sandbox.id}: {error.headline}", *(f"  {each}" for each in (error.reason, *error.others))]
    if error.path:
        lines.append(f"  from {manifest.where(error.path)}, {path_text(error.path)}")
    advice = " To have all or nothing: --all-or-nothing." if error.is_kept else ""
    return [*lines, *(f"  {line}" for line in error.fates), f"  {error.counts}{advice}"]
