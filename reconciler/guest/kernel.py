"""A guest's kernel, reached through the agent in it: what netlink.channel defines as Kernel and Channel."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from reconciler.errors import ChannelError, ProtocolError
from reconciler.guest import agent
from reconciler.guest.client import AgentClient
from reconciler.netlink.message import DONE, ERROR, Message, messages, sequence_of

# Dump requests in one frame: each takes 60 bytes, and 0.1 ms of the kernel's time or more.
DUMPS_AT_ONCE = 2000
# Seconds for all dumps of a table; 5,000 take less than one.
DUMPS_TIMEOUT = 30.0


class GuestKernel:
    """A guest's kernel. The client of its agent stays open: it is the caller's."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    def open(self, protocol: int) -> GuestChannel:
        """Open a channel of a netlink family: some families are relayed in part only."""
        return GuestChannel(self._client, protocol)

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Return the values of sysctls, without those that the kernel does not have."""
        return self._client.read_sysctls(names)

    def set_sysctl(self, name: str, value: str) -> None:
        """Change a sysctl."""
        self._client.set_sysctl(name, value)

    def read_listing(self, name: str) -> str | None:
        """Return a file of /proc/net; None if the kernel does not have it."""
        return self._client.read_listing(name)

    def ipvs_listing(self) -> str | None:
        """Return the kernel's listing of its IPVS table; None if it does not have one."""
        return self._client.ipvs_listing()

    def ipvs_servers(self) -> bytes | None:
        """Return the servers of all IPv4 services; None if the kernel or the agent cannot tell them at once."""
        return self._client.ipvs_servers()


class GuestChannel:
    """A netlink channel of one family. The client that carries it stays open: it is the caller's."""

    def __init__(self, client: AgentClient, protocol: int) -> None:
        """Open the channel of a family of netlink.channel: ROUTE, GENERIC or NETFILTER."""
        self._client = client
        self._protocol = protocol

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        """Send messages back to back. Return all answers up to the one to sequence number `last`."""
        return self._read(self._client.request(agent.NETLINK, self._payload(requests, last)), last)

    def exchanges(self, batches: Iterable[tuple[bytes, int]]) -> Iterator[list[Message]]:
        """Exchange one batch after the other. Send each while the kernel executes the one before."""
        lasts: deque[int] = deque()

        def payloads() -> Iterator[bytes]:
            for requests, last in batches:
                lasts.append(last)
                yield self._payload(requests, last)

        for parts in self._client.requests(agent.NETLINK, payloads()):
            yield self._read(parts, lasts.popleft())

    def dumps(self, requests: Sequence[bytes]) -> list[Message]:
        """Send dump requests, each after the answer to the one before. Return all answers."""
        answers: list[Message] = []
        deadline = time.monotonic() + DUMPS_TIMEOUT
        runs = [requests[start : start + DUMPS_AT_ONCE] for start in range(0, len(requests), DUMPS_AT_ONCE)]
        payloads = (self._payload(b"".join(run), 0) for run in runs)
        for run, parts in zip(runs, self._client.requests(agent.DUMPS, payloads), strict=True):
            answers += self._read(parts, sequence_of(run[-1]))
            if time.monotonic() > deadline:
                raise ChannelError(f"the guest's kernel did not finish {len(requests)} dumps in {DUMPS_TIMEOUT:.0f} s")
        return answers

    def _payload(self, requests: bytes, last: int) -> bytes:
        return agent.NETLINK_HEAD.pack(self._protocol, last) + requests

    def _read(self, parts: list[bytes], last: int) -> list[Message]:
        answers: list[Message] = []
        # Each part is freed once it is read.
        parts.reverse()
        while parts:
            found = messages(parts.pop())
            self._client.budget.spend(0, len(found))
            answers += found
        if not answers or answers[-1].sequence != last or answers[-1].type not in {ERROR, DONE}:
            raise ProtocolError("the answer of the guest's kernel does not end with the one to the last message")
        return answers

    def close(self) -> None:
        """Do nothing: a channel has nothing of its own to close."""
