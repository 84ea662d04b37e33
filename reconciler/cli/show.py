"""`reconciler show`: what is in a sandbox, as a manifest that can be applied to it without a change."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from reconciler.cli.authority import add_push, read_policy
from reconciler.cli.output import print_data, print_documents, say, warn
from reconciler.cli.parser import add_output
from reconciler.cli.reaching import reaching
from reconciler.drivers import connect
from reconciler.errors import ReconcilerError
from reconciler.formats.iproute2 import Item, address_words, item_words, route_words
from reconciler.manifest.expressible import is_expressible, leave_out
from reconciler.manifest.load import explain, load
from reconciler.manifest.sandbox import write
from reconciler.manifest.sections import SECTIONS, everything
from reconciler.manifest.service import name
from reconciler.model.ipvs import seconds_left
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.values import replace


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_output(parser, "yaml", "json", "text", words="yaml or json (manifests), text (a listing)")
    add_push(parser)


def run(arguments: argparse.Namespace) -> int:
    """Observe each sandbox and print it. Only `sandbox` and `driver` of the manifests are used."""
    found: list[Observed] = []
    failed = 0
    policy = read_policy(arguments.policy, arguments.paths, push=arguments.push)
    for manifest in load(arguments.paths, policy):
        try:
            found.append(_observe(manifest.sandbox, policy))
        except ReconcilerError as error:
            warn(*explain(manifest, error))
            failed = failed or error.exit_code
    if arguments.output == "text":
        say(*(line for each in found for line in listing(each)))
        return failed
    documents = [write(expressible(each)) for each in found]
    left = [line for each, document in zip(found, documents, strict=True) for line in left_out(each, document)]
    warn(*left)
    if arguments.output == "yaml":
        say(*(f"# {line}" for line in left))
        print_documents(documents)
    else:
        print_data(documents[0] if len(documents) == 1 else documents, "json")
    return failed


def left_out(found: Observed, document: dict[str, Any]) -> list[str]:
    """Delete from a document what no manifest can express. Return what that was, for a person, one line for each."""
    ipvs = found.sandbox.ipvs
    flags = [
        f"ipvs: {each.protocol} {name(each)}: flags {each.other_flags:#x} are of another program, and stay"
        for each in (ipvs.services or () if ipvs else ())
        if each.other_flags
    ]
    left = [*leave_out(document), *flags, *_inexpressible(found.sandbox)]
    return [f"{found.sandbox.id}: left out, as no manifest can express it: {line}" for line in left]


def _observe(sandbox: Sandbox, policy: Policy) -> Observed:
    with connect(sandbox, policy, report=reaching(sandbox.id, "show")) as driver:
        return driver.observe(everything(sandbox))


def _inexpressible(sandbox: Sandbox) -> Iterator[str]:
    """Yield the words of our objects of which a manifest can express only a part, or nothing."""
    for interface in sandbox.interfaces or ():
        for address in interface.addresses:
            if address.opaque:
                yield f"interfaces: address {address_words(address)} of {interface.name}"
    for route in sandbox.routes or ():
        if route.opaque or not is_expressible(route):
            yield f"routes: {route_words(route)}"
    items: list[Item] = [*(sandbox.neighbours or ()), *(sandbox.rules or ())]
    yield from (f"{item.section}: {item_words(item)}" for item in items if item.opaque)


def expressible(found: Observed) -> Sandbox:
    """Return what a manifest can express: without servers that drain, but with the time that they have left."""
    sandbox = replace(
        found.sandbox,
        routes=tuple(filter(is_expressible, found.sandbox.routes or ())),
    )
    ipvs = found.sandbox.ipvs
    services = ipvs.services if ipvs else None
    if ipvs is None or not any(server.deadline is not None for each in services or () for server in each.servers):
        return sandbox
    kept = []
    left = 1
    for service in services or ():
        servers = tuple(server for server in service.servers if server.deadline is None)
        left = max(
            left, *(seconds_left(s.deadline, found.around.now) for s in service.servers if s.deadline is not None), 1
        )
        if servers or not service.servers:
            kept.append(replace(service, servers=servers))
    return replace(sandbox, ipvs=replace(ipvs, services=tuple(kept), drain=left))


def listing(found: Observed) -> Iterator[str]:
    """Yield a line about a sandbox, lines about our objects, then about foreign ones, in the notation of iproute2."""
    sandbox, around = found.sandbox, found.around
    yield f"{sandbox.id} · {sandbox.driver}"
    yield from (f"  {line}" for section in SECTIONS for line in section.list_ours(found))
    foreign = [line for section in SECTIONS for line in section.list_foreign(around)]
    if foreign:
        yield "  not ours, left alone:"
        yield from (f"    {line}" for line in foreign)
