"""Pushes our agent into a guest through QEMU's guest agent: as a transient unit of systemd, without a file.

The unit outlives the guest agent, and ends with the guest: after a reboot, the agent is pushed again. It may do no more
than what the agent needs. Everything here is root in the guest, so it happens only where a manifest asks for it and the
operator's policy allows it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources

from reconciler.errors import HostError
from reconciler.guest import agent
from reconciler.guest.guest_agent import GuestCommandError, GuestCommands, Ran, enabled, run
from reconciler.values import NamedTuple
from reconciler.wording import shorten

UNIT = "reconciler-agent"
# Of Python, as the agent needs it.
_LEAST = (3, 9)
# Bytes that one argument of a program may have (linux/binfmts.h: MAX_ARG_STRLEN), with the name of the property.
MOST = (128 << 10) - 64
# Characters of what a program of the guest printed.
_WORDS = 400
# Folders in which network managers are told of our NICs, which systemd does not make.
FOLDERS = "/run/systemd/network /run/NetworkManager/conf.d"
# How the agent runs, pushed or in an image: systemd.exec(5).
PROPERTIES = (
    "Restart=always",
    "RestartSec=1",
    "StartLimitIntervalSec=0",
    # CAP_NET_RAW and the families of the Internet are for checks: ICMP echo, and connections.
    "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_MODULE",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    *(f"ReadWritePaths=-{folder}" for folder in FOLDERS.split()),
    "RestrictAddressFamilies=AF_NETLINK AF_UNIX AF_INET AF_INET6",
    "DevicePolicy=closed",
    "DeviceAllow=char-virtio-portsdev rw",
    "MemoryMax=64M",
)
_IN_IMAGE = "put the agent into the image instead: `reconciler agent cloud-init`, or `reconciler agent unit`"
# What a guest has: one line each, `name=value`.
_FACTS = f"""PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin"
python=$(command -v python3) && python=$(python3 -I -c 'import sys; print(*sys.version_info[:2], sep=".")')
echo "python=$python"
[ -d /run/systemd/system ] && command -v systemd-run >/dev/null && echo systemd=yes
systemctl show -p ActiveState -p FragmentPath -p Description {UNIT}.service 2>/dev/null
exit 0
"""
_STOP = f"""PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin"
systemctl stop {UNIT}.service
systemctl reset-failed {UNIT}.service 2>/dev/null
rmdir {FOLDERS} /run/NetworkManager 2>/dev/null
exit 0
"""


class Presence(NamedTuple):
    """What a guest has: its Python, whether systemd runs it, and our unit there.

    `active`: whether the unit runs. `fragment`: the file of the unit, if the guest has one of its own. `source`: the
    hash of the agent that was pushed, "" if none is.
    """

    python: tuple[int, int] | None
    systemd: bool
    active: bool
    fragment: str
    source: str

    @property
    def is_current(self) -> bool:
        """Return whether the agent of this program was pushed, and runs."""
        return self.active and self.source == digest()


@cache
def source() -> bytes:
    """Return the text of the agent."""
    return resources.files("reconciler.guest").joinpath("agent.py").read_bytes()


@cache
def digest() -> str:
    """Return by what two agents are told apart that speak the same version of the protocol."""
    return hashlib.sha256(source()).hexdigest()[:12]


def look(guest: GuestCommands) -> Presence:
    """Return what a guest has. HostError, with what to do, if its agent may not run programs."""
    ran = _run(guest, _FACTS)
    facts = dict(line.partition("=")[::2] for line in ran.output.splitlines())
    fragment = facts.get("FragmentPath", "")
    is_ours = fragment.startswith("/run/systemd/transient/")
    words = facts.get("Description", "").split()
    return Presence(
        python=_version(facts.get("python", "")),
        systemd=facts.get("systemd") == "yes",
        active=facts.get("ActiveState") in {"active", "activating"},
        fragment="" if is_ours else fragment,
        source=words[-1] if is_ours and words else "",
    )


def push(guest: GuestCommands, port: str = agent.PORT) -> None:
    """Start our agent in a guest; replace one that was pushed before. It serves the virtio-serial port of this name.

    HostError, with what to do, if that is impossible there.
    """
    found = look(guest)
    _check(found)
    if found.source:
        _stop(guest)
    ran = _run(guest, "\n".join(_start(port)), base64.b64encode(source()))
    if ran.status:
        raise HostError(f"systemd-run in the guest failed, so no agent was pushed: {_words(ran)}")


def remove(guest: GuestCommands) -> bool:
    """Stop the agent that was pushed, and remove what the push made. Return whether there was one."""
    found = look(guest)
    if not found.source:
        return False
    _stop(guest)
    return True


def _check(found: Presence) -> None:
    """Raise HostError if our agent cannot run in a guest."""
    if not found.systemd:
        raise HostError(f"the guest is not run by systemd, which runs an agent that is pushed; {_IN_IMAGE}")
    if found.python is None:
        raise HostError(f"the guest has no python3, which the agent needs (3.9 or later); {_IN_IMAGE}")
    if found.python < _LEAST:
        version = ".".join(map(str, found.python))
        raise HostError(f"the guest has Python {version}, and the agent needs 3.9 or later; install that in the guest")
    if found.fragment:
        raise HostError(
            f"the guest has a unit {UNIT}.service of its own ({found.fragment}), and no agent of this version answers; "
            f"see `systemctl status {UNIT}` in the guest, and replace its agent (`reconciler agent cloud-init`)"
        )


def _start(port: str) -> Iterator[str]:
    """Yield the lines of the script that starts the unit. Its standard input is the agent, in base64."""
    yield 'PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin"'
    yield f"mkdir -p {FOLDERS} || exit 1"
    words = " ".join(f'-p "{each}"' for each in PROPERTIES)
    yield (
        f"exec systemd-run -q --collect --unit={UNIT} --description='reconciler agent {digest()}' {words} "
        f'-p StandardInput=data -p "StandardInputData=$(cat)" "$(command -v python3)" -I - {port}'
    )


def _stop(guest: GuestCommands) -> None:
    ran = _run(guest, _STOP)
    if ran.errors:
        raise HostError(f"the agent in the guest was not stopped: {_words(ran)}")


def _run(guest: GuestCommands, script: str, standard_input: bytes = b"") -> Ran:
    """Run a script in a guest. HostError, with what to do, if its agent may not run programs."""
    blocked = (
        "allow it in the guest (block-rpcs or allow-rpcs of qemu-ga, in /etc/qemu/qemu-ga.conf or "
        f"/etc/sysconfig/qemu-ga), or {_IN_IMAGE}"
    )
    if not enabled(guest, "guest-exec") or not enabled(guest, "guest-exec-status"):
        raise HostError(f"the guest agent of this guest may not execute programs (guest-exec is disabled); {blocked}")
    try:
        return run(guest, script, standard_input)
    except GuestCommandError as error:
        if "Permission denied" in error.text:
            raise HostError(
                f"the guest does not let its guest agent execute programs ({error.text}), as SELinux does by default; "
                f"{_IN_IMAGE}"
            ) from error
        if "disabled" in error.text or "not allowed" in error.text:
            raise HostError(
                f"the guest agent of this guest may not execute programs ({error.text}); {blocked}"
            ) from error
        raise


def _version(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def _words(ran: Ran) -> str:
    return shorten(" ".join((ran.errors or ran.output or f"exit status {ran.status}").split()), _WORDS)
