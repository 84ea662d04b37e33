"""`reconciler validate`: check manifests, each by itself and all together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from reconciler.cli.authority import read_policy
from reconciler.cli.output import print_data, print_warnings, say, show_problems
from reconciler.cli.parser import add_output
from reconciler.drivers.reach import examine
from reconciler.errors import ManifestError, NotAllowedError, Problem, RefusedError, bounded
from reconciler.manifest.finding import Finding
from reconciler.manifest.load import Manifest, load, located, warnings
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Surroundings
from reconciler.wording import plural


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_output(parser, "text", "json", "yaml", words="form of the problems")


def run(arguments: argparse.Namespace) -> int:
    """Print warnings and the number of manifests, or what is wrong with them or not allowed. Return the exit code."""
    policy = read_policy(arguments.policy, arguments.paths)
    try:
        manifests = load(arguments.paths, policy)
    except ManifestError as error:
        if arguments.output == "text":
            raise
        _print(arguments, problems=error.problems)
        return error.exit_code
    if refused := _refusals(manifests, policy):
        if arguments.output == "text":
            show_problems(bounded(refused), color=arguments.color)
        else:
            _print(arguments, problems=refused)
        return RefusedError.exit_code
    found = warnings((each, Surroundings()) for each in manifests)
    if arguments.output == "text":
        print_warnings(found)
        say(f"{len(manifests)} {plural('manifest', len(manifests))} valid")
    else:
        _print(arguments, warned=found)
    return 0


def _refusals(manifests: Sequence[Manifest], policy: Policy) -> list[Problem]:
    """Return what manifests name and the policy does not allow, as far as this host has it."""
    refused: list[tuple[Manifest, list[Finding]]] = []
    for manifest in manifests:
        try:
            examine(manifest.sandbox, policy)
        except NotAllowedError as error:
            refused.append((manifest, [Finding(path, message, refused=True) for path, message in error.refusals]))
        except RefusedError as error:
            refused.append((manifest, [Finding(error.path, str(error), refused=True)]))
    return [each._replace(message=f"refused: {each.message}") for each in located(refused)]


def _print(arguments: argparse.Namespace, problems: Sequence[Problem] = (), warned: Sequence[Problem] = ()) -> None:
    lists = {"problems": problems, "warnings": warned}
    print_data({name: [each.to_data() for each in listed] for name, listed in lists.items()}, arguments.output)
