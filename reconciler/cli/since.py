"""`reconciler diff --since`: what manifests ask for now that they did not ask for at an earlier time."""

from __future__ import annotations

import argparse

from reconciler.cli.moment import FORMS, read_moment
from reconciler.cli.output import Line, print_data, say, warn
from reconciler.cli.render import count_words, plan_data, render_operations
from reconciler.errors import HostError, ReconcilerError
from reconciler.manifest.load import Manifest, explain
from reconciler.manifest.sections import nothing
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.preview import Preview, compare
from reconciler.values import NamedTuple
from reconciler.watch.past import Past, at_revision, at_time
from reconciler.wording import plural, select

# What stands for a sandbox as it is now, which nobody has looked at.
_OF_NOW = {"fingerprint", "cuts"}


class _When(NamedTuple):
    """The earlier time: a moment in Unix seconds, or what the manifests said in a revision."""

    moment: float
    then: dict[str, Sandbox] | None = None

    def past(self, name: str) -> Past:
        """Return what the manifest of a sandbox said then. Raises what `at_time` raises."""
        return at_time(name, self.moment) if self.then is None else Past(self.then.get(name))


class _Found(NamedTuple):
    """What was found: the plan of each sandbox, those that are gone, and the lines of errors."""

    plans: list[tuple[Manifest, Preview]]
    gone: list[str]
    errors: dict[str, list[str]]


def run(arguments: argparse.Namespace, manifests: list[Manifest], policy: Policy) -> int:
    """Print the plan from what each manifest said to what it says. Return 1 if any is not empty."""
    when = _when(arguments, policy)
    gone = set(when.then or ()) - {each.sandbox.id for each in manifests}
    found = _Found([], sorted(select(arguments.only, gone) if arguments.only else gone), {})
    failed = 0
    for manifest in manifests:
        try:
            found.plans.append((manifest, _compare(manifest, when)))
        except ReconcilerError as error:
            found.errors[manifest.sandbox.id] = explain(manifest, error)
            warn(*found.errors[manifest.sandbox.id])
            failed = max(failed, error.exit_code)
    for name in found.gone:
        warn(f"{name}: its manifest was there then, and is not any more")
    _print(arguments, found)
    return failed or int(bool(found.gone) or any(each.plan.operations for _, each in found.plans))


def _when(arguments: argparse.Namespace, policy: Policy) -> _When:
    text = arguments.since
    try:
        return _When(read_moment(text))
    except ValueError:
        pass
    try:
        return _When(0.0, at_revision(arguments.paths, text, policy))
    except HostError as error:
        raise HostError(f"--since: {error} (and it is not {FORMS})") from None


def _compare(manifest: Manifest, when: _When) -> Preview:
    desired = manifest.sandbox
    past = when.past(desired.id)
    if past.note:
        warn(f"{desired.id}: {past.note}")
    before = past.sandbox or nothing(desired)
    if past.sandbox and before.driver != desired.driver:
        warn(f"{desired.id}: it was {before.driver} then, and is {desired.driver} now")
    return compare(desired, Observed(sandbox=before))


def _print(arguments: argparse.Namespace, found: _Found) -> None:
    if arguments.output != "text":
        plans = [plan_data(*each) for each in found.plans]
        data = {
            "since": arguments.since,
            "sandboxes": [{name: value for name, value in each.items() if name not in _OF_NOW} for each in plans],
            "gone": found.gone,
            "errors": [{"sandbox": name, "error": lines} for name, lines in found.errors.items()],
        }
        print_data(data, arguments.output)
        return
    for manifest, each in found.plans:
        head = f"{manifest.sandbox.id} · {manifest.sandbox.driver} · {manifest.file}, since {arguments.since}"
        lines: list[Line] = [*render_operations(each.plan.operations, verbose=arguments.verbose)]
        say(*([head, *lines] if lines else [f"{head}: unchanged"]), color=arguments.color)
    if found.plans:
        operations = [operation for _, each in found.plans for operation in each.plan.operations]
        sandboxes = f"{len(found.plans)} {plural('sandbox', len(found.plans))}"
        say("", f"{sandboxes}: {count_words(operations) if operations else 'nothing has changed'}.")
