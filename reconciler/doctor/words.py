"""Commands that mend what was found, as a root shell of this host takes them."""

from __future__ import annotations

from typing import assert_never

from reconciler.doctor.facts import Box
from reconciler.model.sandbox import KataAddress, LibvirtAddress, MachineAddress, NetnsAddress, VmAddress
from reconciler.wording import quote


def command(*words: str) -> str:
    """Return a command line, each of whose words is quoted if it has to be."""
    return " ".join(map(quote, words))


def within(box: Box, *words: str) -> str:
    """Return a command line that runs a command in the network of a sandbox."""
    address = box.driver
    match address:
        case NetnsAddress():
            if words[0] == "ip" and address.name:
                return command("ip", "-n", address.name, *words[1:])
            return command("nsenter", f"--net={address.file}", *words)
        case VmAddress():
            if address.name:
                return command("reconciler", "sandbox", "exec", address.name, "--", *words)
            return f"{command(*words)}    # in the machine"
        case LibvirtAddress():
            return f"{command(*words)}    # in the domain {address.domain}"
        case KataAddress():
            return f"{command(*words)}    # in the container"
        case _:
            assert_never(address)


def run(box: Box | None, *words: str) -> str:
    """Return a command line that runs a command in the network of a sandbox, or of the host."""
    return within(box, *words) if box else command(*words)


def six(family: str) -> tuple[str, ...]:
    """Return the option of ip(8) for a family, `ipv4` or `ipv6`; IPv4 needs none."""
    return ("-6",) if family == "ipv6" else ()


def set_sysctl(box: Box | None, name: str, value: int) -> str:
    """Return the command that changes a sysctl, in a sandbox or on the host."""
    if box is None:
        return command("sysctl", "-w", f"{name}={value}")
    if isinstance(box.driver, MachineAddress):
        # Not every machine has sysctl(8).
        path = f"/proc/sys/{name.replace('.', '/')}"
        return within(box, "sh", "-c", f"echo {value} > {quote(path)}")
    return within(box, "sysctl", "-w", f"{name}={value}")


def diff(box: Box) -> str:
    """Return the command that shows all that differs."""
    return command("reconciler", "diff", box.file) if box.file else command("reconciler", "status")


def apply(box: Box) -> str:
    """Return the command that makes a sandbox match its manifest."""
    return command("reconciler", "apply", box.file) if box.file else command("reconciler", "status")


def listed(names: list[str], most: int = 3) -> str:
    """Return the first of some names, and how many there are more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
