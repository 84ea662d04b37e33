"""QEMU's own agent in a domain of libvirt: libvirt holds its channel, and carries commands to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from reconciler.drivers.vm.binding import LibvirtError
from reconciler.errors import BusyError, HostError
from reconciler.guest.guest_agent import WORDS, GuestCommandError, returned
from reconciler.wording import shorten

# Codes of virterror.h: the guest agent is not connected, or does not answer, or answers something else.
_SILENT = {86, 97}
# How libvirt repeats what the guest agent says when it refuses a command.
_REFUSED = "unable to execute QEMU agent command"
_NO_CHANNEL = "guest agent is not configured"


class DomainGuestAgent:
    """See `guest.guest_agent.GuestCommands`. `ask` has libvirt ask the agent of a domain, which has this name."""

    def __init__(self, name: str, ask: Callable[[str], str]) -> None:
        self._name, self._ask = name, ask

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command, as the protocol says. HostError if the domain has no channel for that agent."""
        try:
            answer = self._ask(json.dumps({"execute": command, "arguments": arguments}))
        except LibvirtError as error:
            text = str(error)
            if error.code in _SILENT:
                raise BusyError(
                    f"no guest agent answers in the domain {self._name}: the guest is starting, or no qemu-guest-agent "
                    f"runs in it ({text})"
                ) from error
            if _NO_CHANNEL in text:
                raise HostError(
                    f"the domain {self._name} has no channel for qemu-guest-agent, through which reconciler's agent "
                    "would be pushed into it; add <channel type='unix'> with <target type='virtio' "
                    "name='org.qemu.guest_agent.0'/>"
                ) from error
            if _REFUSED in text:
                refusal = text.partition(f"'{command}': ")[2] or text
                raise GuestCommandError(command, shorten(refusal, WORDS)) from error
            raise
        return returned(command, answer.encode())
