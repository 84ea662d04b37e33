"""The layout of the keys below /reconciler/v1/: how each is built and read. No other module knows it.

The names of hosts and sandboxes are checked where they enter (`check_host`), so no name can have a `/` in it.

| key | value | writer |
| --- | --- | --- |
| blob/HOST/DIGEST[/N] | a file, zlib; chunks of `blobs.CHUNK` if it is larger | push |
| plan/REL/HOST | `Plan` | push |
| release/REL | `Release` | push |
| rollout | `Rollout` | push, leader: compare-and-swap |
| desired/HOST | `Desired`: the plan whose turn has come | leader |
| status/HOST | `HostStatus` | gate |
| alive/HOST | the name of the gate, on the gate's lease | gate |
| host/HOST | `HostRecord` | an administrator |
| pushing | who pushes, on a lease: while it exists, no blob is removed that no plan names yet | push |
| leader | the leader's name, on its lease; its create revision fences what the leader writes | leader |
"""

from __future__ import annotations

import re

ROOT = "/reconciler/v1/"
BLOBS = f"{ROOT}blob/"
PLANS = f"{ROOT}plan/"
RELEASES = f"{ROOT}release/"
ROLLOUT = f"{ROOT}rollout"
ALL_DESIRED = f"{ROOT}desired/"
STATUSES = f"{ROOT}status/"
ALIVE = f"{ROOT}alive/"
HOSTS = f"{ROOT}host/"
PUSHING = f"{ROOT}pushing"
LEADER = f"{ROOT}leader"

# As a host name or a common name of a certificate has it; a folder of the tree has the same.
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")


def is_host(name: str) -> bool:
    """Return whether a text can be the name of a host: letters, digits, `_`, `.` and `-`, at most 64 of them."""
    return _HOST.fullmatch(name) is not None


def check_host(name: str) -> str:
    """Return the name of a host. ValueError if it cannot be one."""
    if not is_host(name):
        raise ValueError(
            f'"{name}" cannot be the name of a host: it has 1 to 64 letters, digits, "_", "." and "-", '
            "and begins and ends with a letter or digit"
        )
    return name


def last(key: str) -> str:
    """Return the last part of a key, such as the host of desired/HOST."""
    return key.rpartition("/")[2]


def blobs(host: str) -> str:
    """Return the prefix of all blobs of a host."""
    return f"{BLOBS}{host}/"


def blob(host: str, digest: str) -> str:
    """Return the key of a blob, which is also the key of its first chunk."""
    return f"{blobs(host)}{digest}"


def chunk(host: str, digest: str, number: int) -> str:
    """Return the key of a chunk of a blob; 0 is its first."""
    return f"{blob(host, digest)}/{number}" if number else blob(host, digest)


def digest_of(key: str) -> str:
    """Return the digest in the key of a blob or of a chunk."""
    return key.removeprefix(BLOBS).split("/")[1]


def plans(release: str) -> str:
    """Return the prefix of all plans of a release."""
    return f"{PLANS}{release}/"


def plan(release: str, host: str) -> str:
    """Return the key of a host's plan in a release."""
    return f"{plans(release)}{host}"


def release(name: str) -> str:
    """Return the key of a release."""
    return f"{RELEASES}{name}"


def desired(host: str) -> str:
    """Return the key of what a host should be like now."""
    return f"{ALL_DESIRED}{host}"


def status(host: str) -> str:
    """Return the key of what a host has reported."""
    return f"{STATUSES}{host}"


def alive(host: str) -> str:
    """Return the key that exists while a gate has a connection of a host."""
    return f"{ALIVE}{host}"


def host(name: str) -> str:
    """Return the key of what an administrator has said about a host."""
    return f"{HOSTS}{name}"
