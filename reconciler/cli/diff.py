"""`reconciler diff`: what would apply do?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from reconciler.cli.authority import add_push, read_policy
from reconciler.cli.beside import Output, beside
from reconciler.cli.only import add_only, chosen
from reconciler.cli.output import is_obedient, print_data, print_warnings, rewrite, say, warn
from reconciler.cli.parser import add_output
from reconciler.cli.reaching import reaching
from reconciler.cli.render import plan_data, refusal_lines, render_plan, render_summary
from reconciler.drivers import connect
from reconciler.errors import ApplyError, HostError
from reconciler.manifest.load import Manifest, load, warnings
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Observed
from reconciler.preview import Preview, captured, compare, preview, priced, rehearsed
from reconciler.safety import combine
from reconciler.wording import suggest

if TYPE_CHECKING:
    from reconciler.guest.throwaway import Throwaways


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    words = "text (commands), json or yaml (stable, for programs), shell (a script that can be run)"
    add_output(parser, "text", "json", "yaml", "shell", words=words)
    parser.add_argument("-v", "--verbose", action="store_true", help="print every operation of a long run of like ones")
    parser.add_argument(
        "--observed",
        metavar="FILE",
        help="compare with a saved `show` instead of the sandbox: no root and no sandbox is needed",
    )
    parser.add_argument(
        "--since",
        metavar="TIME|REVISION",
        help="compare with what the manifests said at a time (1h, 2026-11-27T10:00; by the history), or in a revision "
        "of git, not with the sandbox",
    )
    add_only(parser)
    add_push(parser)
    parser.add_argument(
        "--prove",
        action="store_true",
        help="carry the plan out in a copy of the sandbox, and say what the kernel says; the sandbox stays as it is",
    )
    parser.add_argument("--adopt", action="store_true", help="show what `apply --adopt` would do")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan of each sandbox. Return 1 if any is not empty.

    If one cannot be read, the others are still printed.
    """
    if arguments.since is not None and (arguments.observed or arguments.adopt or arguments.output == "shell"):
        raise HostError("--since compares manifests, so neither --observed nor --adopt nor -o shell goes with it")
    if arguments.observed and arguments.output == "shell":
        raise HostError("-o shell needs the sandbox itself: a saved state does not contain the devices of this host")
    if arguments.prove and (arguments.observed or arguments.since is not None):
        raise HostError("--prove copies the sandbox itself, so neither --observed nor --since goes with it")
    policy = read_policy(arguments.policy, arguments.paths, push=arguments.push)
    manifests = chosen(load(arguments.paths, policy), arguments.only)
    if arguments.since is not None:
        from reconciler.cli import since

        return since.run(arguments, manifests, policy)
    saved = _load_saved(arguments.observed) if arguments.observed else None
    previews: list[tuple[Manifest, Preview]] = []
    errors: dict[str, Sequence[str]] = {}
    failed = 0

    with _throwaways(prove=arguments.prove) as throwaways:

        def work(manifest: Manifest, output: Output) -> Preview:
            return _preview(manifest, output, saved, policy, arguments, throwaways)

        for ended in beside(manifests, work):
            if ended.result:
                previews.append((ended.manifest, ended.result))
            else:
                errors[ended.manifest.sandbox.id] = ended.lines()
                warn(*ended.lines())
                failed = max(failed, ended.exit_code)
    print_warnings(warnings((manifest, each.observed.around) for manifest, each in previews))
    _print(arguments, previews, errors)
    for manifest, each in previews:
        if each.rehearsal and each.rehearsal.proven is False:
            warn(*refusal_lines(manifest, each.rehearsal))
            failed = max(failed, ApplyError.exit_code)
    return failed or int(any(each.plan.operations for _, each in previews))


def _throwaways(*, prove: bool) -> AbstractContextManager[Throwaways | None]:
    """Return the machines in which plans are tried; none are started before they are needed."""
    if not prove:
        return nullcontext()
    # Few commands prove anything.
    from reconciler.guest.throwaway import Throwaways

    # A machine starts for seconds, and a person waits.
    return Throwaways(rewrite if is_obedient(sys.stderr) else lambda _: None)


def _preview(
    manifest: Manifest,
    output: Output,
    saved: dict[str, Observed] | None,
    policy: Policy,
    arguments: argparse.Namespace,
    throwaways: Throwaways | None,
) -> Preview:
    desired = manifest.sandbox
    if saved is not None:
        if desired.id not in saved:
            hint = suggest(desired.id, saved, listed_by="the saved state")
            raise HostError(f"the saved state does not contain this sandbox; {hint}")
        found = compare(desired, saved[desired.id])
        # Nobody expects connections in a file; programs are told that they are unknown.
        return found if arguments.output == "text" else priced(found, None)
    with connect(desired, policy, report=reaching(desired.id, "diff", output.warn)) as driver:
        found = priced(preview(driver, desired, adopt=arguments.adopt), driver)
        seen = captured(found, driver) if throwaways else None
    return rehearsed(found, seen, throwaways) if throwaways else found


def _load_saved(file: str) -> dict[str, Observed]:
    return {each.sandbox.id: Observed(sandbox=each.sandbox) for each in load([file])}


def _print(
    arguments: argparse.Namespace, previews: Sequence[tuple[Manifest, Preview]], errors: Mapping[str, Sequence[str]]
) -> None:
    match arguments.output:
        case "text":
            for manifest, each in previews:
                say(*render_plan(manifest, each, verbose=arguments.verbose), color=arguments.color)
            if previews:
                say("", render_summary([each for _, each in previews]))
        case "shell":
            # Few want a script.
            from reconciler.cli.script import render_script

            print("#!/bin/sh\nset -e")
            for manifest, each in previews:
                print(render_script(manifest, each))
        case form:
            data = {
                "sandboxes": [plan_data(*each) for each in previews],
                "fingerprint": combine([each.fingerprint for _, each in previews]) if previews else "",
                "errors": [{"sandbox": name, "error": list(lines)} for name, lines in errors.items()],
            }
            print_data(data, form)
