"""How much a kernel is asked at a time: little at first, and then as much as it carries out in good time.

A machine without KVM on a host under load takes a hundred times longer than a namespace, and its kernel answers a batch
only when all of it is carried out. So no fixed size is both cheap for the one and answered in time by the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")

# Bytes of requests in the first batch: some 300 rules of IPVS, which take 50 ms in a machine without KVM.
FIRST = 1 << 15
# Seconds that a batch may take: an answer has to come within 8 (agent.KERNEL_TIMEOUT), and the batch after it, which is
# on its way before that is known, may be twice as large.
GOOD_TIME = 1.0
_LEAST = 256


class Pace:
    """The size of the next batch, in bytes."""

    def __init__(self, most: int) -> None:
        """Begin with FIRST. No batch is larger than `most`."""
        self._most = most
        self.size = min(FIRST, most)

    def timed(self, answers: Iterable[_T]) -> Iterator[_T]:
        """Yield what is answered, batch by batch, and adapt to the time that each took."""
        begun = time.monotonic()
        for answer in answers:
            self._note(time.monotonic() - begun)
            yield answer
            begun = time.monotonic()

    def _note(self, seconds: float) -> None:
        fitting = max(_LEAST, int(self.size * GOOD_TIME / seconds)) if seconds > GOOD_TIME else 2 * self.size
        self.size = min(fitting, self._most)
