"""Adds, removes, renames and fences hosts."""

from __future__ import annotations

import argparse

from reconciler.cli.fleet.connection import missing_extra, with_store
from reconciler.cli.output import say
from reconciler.errors import HostError, RefusedError
from reconciler.fleet import keys
from reconciler.fleet.changing import change_host, unknown_host
from reconciler.fleet.known import parse, read_known
from reconciler.fleet.records import Desired, HostRecord, encode
from reconciler.fleet.renaming import rename
from reconciler.fleet.store import Compare, Delete, Put, Store, StoreError
from reconciler.values import replace


def run(arguments: argparse.Namespace) -> int:
    """Run one action, and say what it did."""
    try:
        keys.check_host(arguments.new if arguments.host_action == "rename" else arguments.name)
    except ValueError as error:
        raise HostError(str(error)) from None
    work = {"add": _add, "remove": _remove, "rename": _rename, "fence": _fence}[arguments.host_action]

    async def on(store: Store) -> str:
        return await work(store, arguments)

    say(with_store(arguments, on))
    return 0


async def _add(store: Store, arguments: argparse.Namespace) -> str:
    name, fingerprint = arguments.name, _fingerprint_of(arguments)
    pair = await store.read(keys.host(name))
    if pair is None:
        record = HostRecord(fingerprint, dict(arguments.label))
        outcome = await store.commit([Put(keys.host(name), encode(record))], [Compare(keys.host(name), created=0)])
        if not outcome.succeeded:
            raise HostError(f"{name} was just added by another command; look with `reconciler fleet status {name}`")
        may = "" if fingerprint else "; it may not connect before it has a certificate (--cert or --fingerprint)"
        return f"{name}: added{may}"

    def changed(record: HostRecord) -> HostRecord:
        labels = {**record.labels, **dict(arguments.label)}
        kept = fingerprint or record.fingerprint
        return replace(record, fingerprint=kept, labels=labels, fenced=False)

    before = parse(HostRecord, pair)
    after = await change_host(store, name, changed)
    if after == before:
        return f"{name}: is in the fleet already"
    words = [
        *(["its certificate is renewed"] if after.fingerprint != before.fingerprint else []),
        *(["its labels are changed"] if after.labels != before.labels else []),
        *(["it is not fenced any more"] if before.fenced else []),
    ]
    return f"{name}: {', '.join(words)}"


async def _remove(store: Store, arguments: argparse.Namespace) -> str:
    name = arguments.name
    pair = await store.read(keys.host(name))
    if pair is None:
        raise await unknown_host(store, name)
    told = await store.read(keys.desired(name))
    desired = parse(Desired, told) if told else None
    known = await read_known(store)
    plan, is_fenced = known.plans.get(name), parse(HostRecord, pair).fenced
    count = len({**(desired.sandboxes if desired else {}), **(plan.sandboxes if plan else {})})
    if not is_fenced and (waiting := known.awaiting(name)):
        raise RefusedError(f"sandboxes move from {name} to {waiting[0]} at present; remove it when the rollout is done")
    if count and not is_fenced:
        raise RefusedError(
            f"{name} has {count:,} sandboxes, which would go on there, and might be given to another host: take its "
            f"folder out of the tree and push, or make sure that it is off, and `reconciler fleet host fence {name}`"
        )
    gone = [keys.host(name), keys.desired(name), keys.status(name), keys.alive(name)]
    conditions = [Compare(keys.host(name), modified=pair.modified), _unchanged(keys.desired(name), told)]
    if not (await store.commit([Delete(each) for each in gone], conditions)).succeeded:
        raise StoreError(f"{name} was changed by others meanwhile, and was not removed; try again")
    return f"{name}: removed"


def _unchanged(key: str, pair: object) -> Compare:
    return Compare(key, modified=getattr(pair, "modified", 0))


async def _rename(store: Store, arguments: argparse.Namespace) -> str:
    await rename(store, arguments.name, arguments.new, _fingerprint_of(arguments))
    return (
        f"{arguments.name}: its name is {arguments.new} now. Rename its folder in the tree as well, and start its "
        "agent with a certificate of that name"
    )


async def _fence(store: Store, arguments: argparse.Namespace) -> str:
    def changed(record: HostRecord) -> HostRecord:
        return replace(record, fenced=True)

    await change_host(store, arguments.name, changed)
    return (
        f"{arguments.name}: fenced. Its sandboxes may go to other hosts, so it must be off; `reconciler fleet host add "
        f"{arguments.name}` lets it come back"
    )


def _fingerprint_of(arguments: argparse.Namespace) -> str:
    """Return the fingerprint that is given, or that of the certificate; empty if neither is."""
    if not arguments.cert:
        return arguments.fingerprint or ""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
    except ImportError as error:
        raise missing_extra(error) from None
    try:
        with open(arguments.cert, "rb") as file:
            return x509.load_pem_x509_certificate(file.read(1 << 20)).fingerprint(hashes.SHA256()).hex()
    except ValueError:
        raise HostError(f"{arguments.cert}: is not a certificate in PEM") from None
