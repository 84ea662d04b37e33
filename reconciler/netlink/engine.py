"""Read the links, addresses and routes of a kernel over any channel: of a namespace of this host, or of a guest."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from socket import AF_INET, AF_INET6

from reconciler.errors import BusyError, HostError, ProtocolError
from reconciler.model.mark import PROTOCOL
from reconciler.model.route import TABLE_LOCAL, Route
from reconciler.netlink import interface, made, message, route
from reconciler.netlink.channel import ROUTE, Channel, LocalKernel
from reconciler.netlink.interface import Link, LinkAddress
from reconciler.netlink.message import Message
from reconciler.values import dataclass, field

# Seconds to retry a dump that a change of the table interrupts.
CONSISTENT_DUMP_TIMEOUT = 10.0
# Routes that are encoded in the time in which one is decoded.
_ENCODED_MEANWHILE = 6


@dataclass(slots=True)
class Routes:
    """The observed routes in the kernel's order: ours, the foreign ones, and the foreign ones of the table `local`.

    `in_front`: (foreign, ours), where the kernel looks at the foreign route first, although both have one destination.
    """

    ours: list[Route] = field(default_factory=list)
    foreign: list[Route] = field(default_factory=list)
    local: list[Route] = field(default_factory=list)
    in_front: list[tuple[Route, Route]] = field(default_factory=list)


@contextmanager
def local_engine() -> Iterator[Engine]:
    """Yield an engine of the namespace that this process is in: the host's."""
    channel = LocalKernel().open(ROUTE)
    try:
        yield Engine(channel)
    finally:
        channel.close()


class Engine:
    """Reads one kernel network namespace."""

    def __init__(self, channel: Channel) -> None:
        """Use `channel`, which the caller closes."""
        self.channel = channel
        self._sequence = 0

    def links(self) -> list[Link]:
        """Read all links."""
        return [
            interface.decode_link(found.payload)
            for found in self.dump(interface.dump_links_request)
            if found.type == message.NEW_LINK
        ]

    def link(self, name: str) -> Link | None:
        """Read one link by name; None if there is none."""
        payload = self.link_payload(name)
        return None if payload is None else interface.decode_link(payload)

    def link_payload(self, name: str) -> bytes | None:
        """Read one link by name, as the kernel describes it; None if there is none."""
        sequence = self.next_sequence()
        answers = self.channel.exchange(interface.get_link_request(name, sequence), sequence)
        for answer in answers:
            if answer.sequence != sequence:
                continue
            if answer.type == message.NEW_LINK:
                return answer.payload
            failed = message.failure(answer)
            if failed is not None and failed.errno != errno.ENODEV:
                raise ProtocolError(f"the kernel refused to report the link {name}: {failed}")
        return None

    def lacks(self, kind: str) -> bool:
        """Return whether the kernel does not have a kind of link, even as a module. It makes none."""
        sequence = self.next_sequence()
        answers = self.channel.exchange(made.lacks_request(kind, sequence), sequence)
        failures = (message.failure(each) for each in answers if each.sequence == sequence)
        return any(failed and made.lacks(failed.errno) for failed in failures)

    def device_to(self, address: str) -> str:
        """Return the name of the link by which the kernel would send a packet to an address.

        HostError with the kernel's reason if it has no route to it, or one that rejects the packet.
        """
        sequence = self.next_sequence()
        request = message.with_ack(route.lookup_request(address, sequence))
        for answer in self.channel.exchange(request, sequence):
            if answer.sequence != sequence:
                continue
            if answer.type == message.NEW_ROUTE:
                index = route.decode_lookup(answer.payload)
                names = {link.index: link.name for link in self.links()}
                if index in names:
                    return names[index]
                break
            if failed := message.failure(answer):
                raise HostError(f"no route to {address}: {failed}")
        raise HostError(f"no route to {address} that leads to an interface")

    def addresses(self) -> list[LinkAddress]:
        """Read all addresses."""
        decoded = (
            interface.decode_address(found.payload)
            for found in self.dump(interface.dump_addresses_request)
            if found.type == message.NEW_ADDRESS
        )
        return [address for address in decoded if address is not None]

    def routes(self, indexes: Mapping[str, int], desired: Collection[Route]) -> Routes:
        """Read all routes. For one whose bytes equal those of a desired route, return that object, or an equal one."""
        dumped = [
            answer.payload
            for family in (AF_INET, AF_INET6)
            for answer in self.dump(partial(route.dump_request, family))
            if answer.type == message.NEW_ROUTE
        ]
        expected = {}
        # If there are but a few of ours, these are decoded sooner than all that are desired are encoded.
        if _ENCODED_MEANWHILE * sum(map(route.is_ours, dumped)) > len(desired):
            expected = {route.encode_body(wish, indexes): wish for wish in desired if wish.devices <= indexes.keys()}
        names = {index: name for name, index in indexes.items()}
        found = Routes()
        # Each foreign route, and how many of ours came before it.
        places: list[tuple[Route, int]] = []
        for payload in dumped:
            wish = route.find_expected(payload, expected)
            if wish is not None:
                found.ours.append(wish)
                continue
            decoded = route.decode(payload, names)
            if decoded is None:
                continue
            if decoded.protocol == PROTOCOL:
                found.ours.append(decoded)
                continue
            (found.local if decoded.table == TABLE_LOCAL else found.foreign).append(decoded)
            places.append((decoded, len(found.ours)))
        found.in_front = list(_in_front(places, found.ours))
        return found

    def next_sequence(self) -> int:
        """Return the next sequence number of this channel."""
        self._sequence += 1
        return self._sequence

    def dump(self, request: Callable[[int], bytes]) -> list[Message]:
        """Return the dump of a table; `request` builds the request with a given sequence number."""
        answers = whole_dump(self.channel, request, self.next_sequence, "the kernel's tables change")
        failed = message.failure(answers[-1])
        if failed:
            raise ProtocolError(f"the kernel refused a dump: {failed}")
        return answers


def whole_dump(
    channel: Channel,
    request: Callable[[int], bytes],
    next_sequence: Callable[[], int],
    what_changes: str,
    check: Callable[[list[Message]], None] = lambda _: None,
) -> list[Message]:
    """Return the dump of a table. Repeat it if the table changed meanwhile: such a dump can lack unchanged entries.

    `request` builds the request with a given sequence number. `check` raises an error if the answers are a refusal.
    BusyError, which begins with `what_changes`, if every dump was interrupted for 10 s.
    """
    deadline = time.monotonic() + CONSISTENT_DUMP_TIMEOUT
    while True:
        sequence = next_sequence()
        answers = [m for m in channel.exchange(request(sequence), sequence) if m.sequence == sequence]
        check(answers)
        if not any(answer.flags & message.DUMP_INTERRUPTED for answer in answers):
            return answers
        if time.monotonic() > deadline:
            raise BusyError(f"{what_changes} too fast to be read ({CONSISTENT_DUMP_TIMEOUT:.0f} s tried)")


def _in_front(places: Iterable[tuple[Route, int]], ours: Sequence[Route]) -> Iterator[tuple[Route, Route]]:
    """Yield (foreign, ours) of one table and destination: the kernel dumps such routes in the order of its lookups."""
    for other, place in places:
        next_ = ours[place] if place < len(ours) else None
        if next_ is not None and (next_.dest, next_.table) == (other.dest, other.table):
            yield other, next_
