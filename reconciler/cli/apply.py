"""`reconciler apply`: make sandboxes what their manifests say."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import replace
from functools import partial

from reconciler.cli.authority import read_policy
from reconciler.cli.named import print_undone
from reconciler.cli.output import print_warnings, say, warn
from reconciler.cli.progress import Progress
from reconciler.cli.render import render_failure, render_operations
from reconciler.converge import Result, apply
from reconciler.drivers import Driver, connect
from reconciler.drivers.claims import Claims
from reconciler.errors import ApplyError, Problem, ReconcilerError, RefusedError
from reconciler.manifest.load import Manifest, explain, load, warnings
from reconciler.model.policy import Policy
from reconciler.preview import Preview, preview
from reconciler.safety import Allowance, combine, parse_allowance
from reconciler.wording import plural


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("-v", "--verbose", action="store_true", help="print the operations")
    parser.add_argument(
        "--allow-delete",
        metavar="N|N%|all",
        type=_allowance,
        help="allow so many deletions of each kind of object (default: 10, or 30 %% if that is more)",
    )
    parser.add_argument(
        "--expect",
        metavar="FINGERPRINT",
        help="refuse unless manifests, sandboxes and the plan are those that `diff` printed this fingerprint for",
    )
    parser.add_argument("--adopt", action="store_true", help="treat foreign IPVS services as ours")
    parser.add_argument(
        "--all-or-nothing",
        action="store_true",
        help="undo everything if an operation fails (otherwise what does not depend on it is kept)",
    )


def _allowance(text: str) -> Allowance:
    try:
        return parse_allowance(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(arguments: argparse.Namespace) -> int:
    """Apply each manifest. If one fails, the others are applied nevertheless."""
    policy = read_policy(arguments.policy, arguments.paths)
    manifests = load(arguments.paths)
    expected = _check_expectation(manifests, policy, arguments) if arguments.expect else {}
    worst = 0
    claims = Claims()
    for manifest in manifests:
        try:
            _apply(manifest, policy, arguments, expected.get(manifest.sandbox.id), claims)
        except ApplyError as error:
            warn(*render_failure(manifest, error))
            worst = worst or error.exit_code
        except ReconcilerError as error:
            warn(*explain(manifest, error))
            worst = worst or error.exit_code
    return worst


def _check_expectation(manifests: list[Manifest], policy: Policy, arguments: argparse.Namespace) -> dict[str, str]:
    """Check the fingerprint of all sandboxes before any is changed.

    Return the one that each must still have in its turn.
    """
    fingerprints = {}
    for manifest in manifests:
        with connect(manifest.sandbox, policy) as driver:
            fingerprints[manifest.sandbox.id] = preview(driver, manifest.sandbox, adopt=arguments.adopt).fingerprint
    _compare(combine(list(fingerprints.values())), arguments.expect)
    return fingerprints


def _compare(found: str, expected: str) -> None:
    if found != expected:
        raise RefusedError(
            f"the fingerprint is {found} now, not {expected}: the manifest or the sandbox has changed since; "
            "look again with `reconciler diff`"
        )


def _apply(
    manifest: Manifest, policy: Policy, arguments: argparse.Namespace, expected: str | None, claims: Claims
) -> None:
    warned: list[Problem] = []

    def accept(found: Preview) -> None:
        warned.extend(warnings([(manifest, found.observed.around)]))
        print_warnings(warned)
        if expected is not None:
            _compare(found.fingerprint, expected)

    progress = Progress(manifest.sandbox.id)
    try:
        with connect(manifest.sandbox, policy) as driver:
            claims.claim(manifest.sandbox, driver)
            result = apply(
                driver,
                manifest.sandbox,
                allowance=arguments.allow_delete,
                accept=accept,
                adopt=arguments.adopt,
                all_or_nothing=arguments.all_or_nothing,
                waiting=partial(_print_waiting, manifest, []),
                progress=progress,
            )
            late = _late_warnings(driver, manifest, result)
    finally:
        progress.clear()
    print_warnings(each for each in late if each not in warned)
    _report(manifest, result, arguments)
    if result.operations:
        print_undone(manifest.sandbox, manifest.file)


def _late_warnings(driver: Driver, manifest: Manifest, result: Result) -> list[Problem]:
    """Return the warnings after a change of NICs: only once a NIC is up, it shows whether it has a carrier."""
    if not result.operations or not manifest.sandbox.interfaces:
        return []
    with suppress(ReconcilerError):
        return warnings([(manifest, driver.observe(replace(manifest.sandbox, ipvs=None)).around)])
    return []


def _print_waiting(manifest: Manifest, printed: list[int], count: int) -> None:
    """Print how many servers drain, whenever that has changed."""
    if printed[-1:] != [count]:
        printed.append(count)
        words = f"waiting for {count:,} IPVS {plural('server', count)} to drain"
        warn(f"{manifest.sandbox.id}: {words} (Ctrl-C is safe: the next apply continues)")


def _report(manifest: Manifest, result: Result, arguments: argparse.Namespace) -> None:
    count = len(result.operations)
    if not count:
        say(f"{manifest.sandbox.id}: in sync")
        return
    say(f"{manifest.sandbox.id}: applied {count:,} {plural('operation', count)} in {result.seconds:.1f} s, verified")
    if arguments.verbose:
        say(*render_operations(result.operations, verbose=True), color=arguments.color)
