"""`reconciler apply`: make sandboxes what their manifests say."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from reconciler.cli.applied import Applied, document
from reconciler.cli.authority import add_push, read_policy
from reconciler.cli.beside import Ended, Output, beside
from reconciler.cli.limits import allowance, connections, fingerprint
from reconciler.cli.named import undone_words
from reconciler.cli.only import add_only, chosen
from reconciler.cli.output import print_data, render_warnings, warn
from reconciler.cli.parser import add_output, seconds
from reconciler.cli.progress import Progress
from reconciler.cli.reaching import reaching
from reconciler.cli.recording import Revisions, applying, writer
from reconciler.cli.render import render_failure, render_operations
from reconciler.converge import Result, apply
from reconciler.drivers import Driver, connect
from reconciler.drivers.claims import Claims
from reconciler.errors import ApplyError, HostError, ManifestError, Problem, ReconcilerError, RefusedError
from reconciler.history.force import take_effect
from reconciler.history.scribe import Scribe
from reconciler.history.writer import Writer
from reconciler.manifest.load import Manifest, load, warnings
from reconciler.model.identity import HostDevice
from reconciler.model.policy import Policy
from reconciler.preview import Preview, preview, priced
from reconciler.safety import check_cut, combine
from reconciler.values import NamedTuple
from reconciler.watch.client import reverting_manifests
from reconciler.wording import failure, plural

if TYPE_CHECKING:
    from reconciler.confirm.trial import Trial


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_output(parser, "text", "json", "yaml", words="text, or what was done as json or yaml, for programs")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the operations")
    add_only(parser)
    add_push(parser)
    parser.add_argument(
        "--allow-delete",
        metavar="N|N%|all",
        type=allowance,
        help="allow so many deletions of each kind of object (default: 10, or 30 %% if that is more)",
    )
    parser.add_argument(
        "--max-cut",
        metavar="N",
        type=connections,
        help="refuse a sandbox whose plan would cut more than so many connections, or if that is not known",
    )
    parser.add_argument(
        "--expect",
        type=fingerprint,
        metavar="FINGERPRINT",
        help="refuse unless manifests, sandboxes and the plan are those that `diff` printed this fingerprint for",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--adopt", action="store_true", help="take over what equals the manifest, and all IPVS services"
    )
    either.add_argument(
        "--confirm",
        metavar="TIME",
        type=seconds,
        help="undo it after so long (60s, 5min), unless `reconciler confirm ID` or Enter keeps it",
    )
    parser.add_argument(
        "--all-or-nothing",
        action="store_true",
        help="undo everything if an operation fails (otherwise what does not depend on it is kept)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Apply each manifest. Whatever one fails of, the others are applied nevertheless."""
    applied: list[Applied] = []
    if arguments.output == "text":
        return _apply_all(arguments, applied)
    problems: list[Problem] = []
    reason: Sequence[str] = ()
    try:
        return _apply_all(arguments, applied)
    except ManifestError as error:
        problems = error.problems
        raise
    except ReconcilerError as error:
        reason = error.lines
        raise
    except OSError as error:
        reason = [failure(error)]
        raise
    except KeyboardInterrupt:
        reason = ["interrupted"]
        raise
    finally:
        print_data(document(applied, problems, reason), arguments.output)


def _apply_all(arguments: argparse.Namespace, applied: list[Applied]) -> int:
    """Apply the chosen manifests, and add to `applied` what becomes of each."""
    policy = read_policy(arguments.policy, arguments.paths, push=arguments.push)
    manifests = chosen(load(arguments.paths, policy), arguments.only)
    applied += [Applied(each) for each in manifests]
    known = {each.manifest.sandbox.id: each for each in applied}
    expected: dict[str, str] = {}
    if arguments.expect:
        found = _preview_all(manifests, policy, arguments)
        if failed := [each for each in found if each.error]:
            return _fail(failed[0], known)
        expected = {each.manifest.sandbox.id: each.result or "" for each in found}
        _compare(combine(list(expected.values())), arguments.expect)
    claims, lines, revisions = Claims(), writer(), Revisions(manifests)

    def work(manifest: Manifest, output: Output) -> None:
        name = manifest.sandbox.id
        _apply(known[name], _Terms(policy, arguments, expected.get(name), claims, lines, revisions), output)

    worst = 0
    # A watcher of thousands of sandboxes is asked once, if anything was changed.
    reverting = cache(reverting_manifests)
    for ended in beside(manifests, work, again=_lacks_device):
        manifest, result = ended.manifest, known[ended.manifest.sandbox.id].result
        if ended.error:
            _fail(ended, known)
        elif result and result.operations and (words := undone_words(manifest.sandbox, reverting(), manifest.file)):
            warn(words)
        worst = worst or ended.exit_code
    if arguments.confirm and arguments.output == "text":
        from reconciler.cli.confirm import await_confirmation

        worst = await_confirmation([each.pending for each in applied if each.pending]) or worst
    return worst


def _fail(ended: Ended[Any], known: dict[str, Applied]) -> int:
    """Print why a sandbox failed, and record it."""
    applied = known[ended.manifest.sandbox.id]
    applied.error = ended.error
    error = ended.error
    applied.lines = render_failure(ended.manifest, error) if isinstance(error, ApplyError) else ended.lines()
    warn(*applied.lines)
    return ended.exit_code


def _lacks_device(error: Exception) -> bool:
    """Return whether a sandbox lacks a device of the host: another sandbox of this run may have given it back since."""
    return isinstance(error, HostError) and isinstance(error.about, HostDevice)


def _preview_all(manifests: list[Manifest], policy: Policy, arguments: argparse.Namespace) -> list[Ended[str]]:
    """Return the fingerprint of each sandbox, before any is changed. Each must still have it in its turn."""

    def work(manifest: Manifest, output: Output) -> str:
        with connect(manifest.sandbox, policy, report=reaching(manifest.sandbox.id, "apply", output.warn)) as driver:
            return preview(driver, manifest.sandbox, adopt=arguments.adopt).fingerprint

    return list(beside(manifests, work))


def _compare(found: str, expected: str) -> None:
    if found != expected:
        raise RefusedError(
            f"the fingerprint is {found} now, not {expected}: the manifest or the sandbox has changed since; "
            "look again with `reconciler diff`"
        )


class _Terms(NamedTuple):
    """What a sandbox is applied by. `expected`: the fingerprint that it must have, if any.

    `lines`: the history. `revisions`: those of all manifests, for the history.
    """

    policy: Policy
    arguments: argparse.Namespace
    expected: str | None
    claims: Claims
    lines: Writer
    revisions: Revisions


def _apply(applied: Applied, terms: _Terms, output: Output) -> None:
    manifest = applied.manifest
    policy, arguments, expected, claims, lines, revisions = terms
    applied.begin, applied.planned, applied.warnings = time.monotonic(), (), []
    report = reaching(manifest.sandbox.id, "apply", output.warn)

    def accept(found: Preview, driver: Driver) -> None:
        # It is called again if another program is quicker than the plan.
        news = [each for each in warnings([(manifest, found.observed.around)]) if each not in applied.warnings]
        applied.warnings += news
        output.warn(*render_warnings(news))
        applied.planned = found.plan.operations
        if expected is not None or arguments.output != "text":
            # To hash a large table takes a while.
            applied.fingerprint = found.fingerprint
        if expected is not None:
            _compare(applied.fingerprint, expected)
        if arguments.max_cut is not None:
            check_cut(priced(found, driver).cost, arguments.max_cut)

    # Several of them would overwrite each other.
    progress = Progress(manifest.sandbox.id) if output.is_direct else None
    scribe = applying(lines, manifest, revisions)
    trial = _trial(terms, manifest, scribe) if arguments.confirm else None
    try:
        with scribe.attempt(), connect(manifest.sandbox, policy, report=report) as driver:
            claims.claim(manifest.sandbox, driver)
            result = apply(
                driver,
                manifest.sandbox,
                allowance=arguments.allow_delete,
                accept=lambda found: accept(found, driver),
                adopt=arguments.adopt,
                all_or_nothing=arguments.all_or_nothing,
                waiting=partial(_print_waiting, manifest, []),
                progress=progress or (lambda *_: None),
                scribe=scribe,
                tell=lambda words: output.warn(f"{manifest.sandbox.id}: {words}"),
                trial=trial,
            )
            if not result.operations:
                scribe.settle()
            applied.pending = trial.pending if trial else None
            if not applied.pending:
                take_effect(scribe, manifest)
            applied.result = result
    finally:
        applied.seconds = time.monotonic() - applied.begin
        if progress:
            progress.clear()
    late = [each for each in _late_warnings(manifest, result) if each not in applied.warnings]
    output.warn(*render_warnings(late))
    applied.warnings += late
    if arguments.output == "text":
        _report(applied, result, arguments, output)


def _trial(terms: _Terms, manifest: Manifest, scribe: Scribe) -> Trial:
    # Most changes are not on trial.
    from reconciler.confirm.trial import Trial

    return Trial(terms.policy, terms.arguments.confirm, manifest, scribe, terms.lines)


def _late_warnings(manifest: Manifest, result: Result) -> list[Problem]:
    """Return the warnings after a change of NICs: only once a NIC is up, it shows whether it has a carrier."""
    if not result.around or not result.operations or not manifest.sandbox.interfaces:
        return []
    return warnings([(manifest, result.around)])


def _print_waiting(manifest: Manifest, printed: list[int], count: int) -> None:
    """Print how many servers drain, whenever that has changed."""
    if printed[-1:] != [count]:
        printed.append(count)
        words = f"waiting for {count:,} IPVS {plural('server', count)} to drain"
        warn(f"{manifest.sandbox.id}: {words} (Ctrl-C is safe: the next apply continues)")


def _report(applied: Applied, result: Result, arguments: argparse.Namespace, output: Output) -> None:
    manifest = applied.manifest
    count = len(result.operations)
    if not count:
        output.say(f"{manifest.sandbox.id}: in sync")
        return
    words = f"applied {count:,} {plural('operation', count)} in {result.seconds:.1f} s, verified"
    output.say(f"{manifest.sandbox.id}: {words}")
    if applied.pending:
        output.say(f"{manifest.sandbox.id}: {applied.pending.words}")
    if arguments.verbose:
        output.say(*render_operations(result.operations, verbose=True), color=arguments.color)
