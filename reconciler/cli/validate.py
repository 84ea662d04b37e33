"""`reconciler validate`: check manifests, each by itself and all together."""

from __future__ import annotations

import argparse

from reconciler.cli.output import print_data, print_warnings
from reconciler.errors import ManifestError
from reconciler.manifest.load import load, warnings
from reconciler.model.sandbox import Surroundings
from reconciler.wording import plural


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "-o",
        "--output",
        choices=("text", "json", "yaml"),
        default="text",
        help="format of the problems (default: text)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print warnings and the number of manifests, or their problems. Return the exit code."""
    try:
        manifests = load(arguments.paths)
    except ManifestError as error:
        if arguments.output == "text":
            raise
        print_data({"problems": [each._asdict() for each in error.problems], "warnings": []}, arguments.output)
        return error.exit_code
    found = warnings((each, Surroundings()) for each in manifests)
    if arguments.output == "text":
        print_warnings(found)
        print(f"{len(manifests)} {plural('manifest', len(manifests))} valid")
    else:
        print_data({"problems": [], "warnings": [each._asdict() for each in found]}, arguments.output)
    return 0
