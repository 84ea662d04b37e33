"""`reconciler validate`: are these manifests right, by themselves and together?"""

from __future__ import annotations

import argparse

from reconciler.cli.output import print_data
from reconciler.errors import ManifestError
from reconciler.manifest.load import load
from reconciler.wording import plural


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "-o", "--output", choices=("text", "json", "yaml"), default="text", help="how to print problems"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print nothing but a count if all is well."""
    try:
        manifests = load(arguments.paths)
    except ManifestError as error:
        if arguments.output == "text":
            raise
        print_data({"problems": [problem._asdict() for problem in error.problems]}, arguments.output)
        return error.exit_code
    if arguments.output == "text":
        print(f"{len(manifests)} {plural('manifest', len(manifests))} valid")
    else:
        print_data({"problems": []}, arguments.output)
    return 0
