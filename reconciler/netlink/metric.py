"""The metrics of a route in netlink's format: RTA_METRICS, in the order in which the kernel dumps them.

Source: include/uapi/linux/rtnetlink.h (RTAX_*), net/core/rtnetlink.c (rtnetlink_put_metrics).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

from reconciler.model.metric import BY_FIELD, BY_NUMBER, Metric, Metrics, is_expressible
from reconciler.netlink import message
from reconciler.values import NamedTuple

_U32 = struct.Struct("=I")
_LOCK, _MTU = 1, 2
# Bytes: TCP_CA_NAME_MAX of net/tcp.h.
_NAME_MAX = 16


class Decoded(NamedTuple):
    """What a route has of metrics. `others`: (number, value) of those that no manifest can have."""

    mtu: int = 0
    mtu_lock: bool = False
    metrics: Metrics = ()
    others: tuple[tuple[int, bytes], ...] = ()


NONE = Decoded()


# A long list of routes has few combinations of them.
@lru_cache(maxsize=1024)
def encode(mtu: int, metrics: Metrics, *, mtu_lock: bool) -> bytes:
    """Build the attributes within RTA_METRICS; empty if there are none."""
    values: dict[int, bytes] = {_MTU: _U32.pack(mtu)} if mtu else {}
    locks = 1 << _MTU if mtu_lock else 0
    for field, value in metrics:
        metric = BY_FIELD[field]
        locks |= 1 << metric.number if metric.locked else 0
        values[metric.number] = value.encode() + b"\0" if isinstance(value, str) else _U32.pack(value)
    if locks:
        values[_LOCK] = _U32.pack(locks)
    return b"".join(message.attribute(number, values[number]) for number in sorted(values))


@lru_cache(maxsize=1024)
def decode(nested: bytes) -> Decoded:
    """Decode the attributes within RTA_METRICS. ProtocolError for malformed bytes."""
    if not nested:
        return NONE
    found = dict(message.attributes(nested))
    locks = _number(found[_LOCK]) if _LOCK in found else 0
    mtu = _number(found.pop(_MTU)) if _MTU in found else 0
    mtu_lock = bool(mtu and locks & 1 << _MTU)
    locks &= ~(1 << _MTU) if mtu else ~0
    metrics: list[tuple[str, int | str]] = []
    for number, value in list(found.items()):
        metric = BY_NUMBER.get(number)
        if metric is None or bool(locks & 1 << number) != metric.locked:
            continue
        read = _value(metric, value)
        if is_expressible(metric, read):
            metrics.append((metric.field, read))
            locks &= ~(1 << number)
            del found[number]
    return Decoded(mtu, mtu_lock, tuple(metrics), _others(found, locks))


def _others(found: Mapping[int, bytes], locks: int) -> tuple[tuple[int, bytes], ...]:
    """Return what is left, of RTAX_LOCK the bits of metrics that are left."""
    left = {number: value for number, value in found.items() if number != _LOCK}
    return ((_LOCK, _U32.pack(locks)), *left.items()) if locks else tuple(left.items())


def _value(metric: Metric, value: bytes) -> int | str:
    return message.text(value, _NAME_MAX, "name of an algorithm") if metric.kind == "name" else _number(value)


def _number(value: bytes) -> int:
    return message.number(value, "metric of a route")
