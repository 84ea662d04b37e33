"""What a dumped route has that no manifest can express, in the words of iproute2.

Such a route never equals a desired one. What changes by itself, such as the seconds until a route expires, is a word
without its number: words are compared.
Source: include/uapi/linux/rtnetlink.h (enum rtattr_type_t, RTAX_*, RTNH_F_*), linux/lwtunnel.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from reconciler.model.metric import METRICS
from reconciler.model.route import NEXTHOP_OBJECT
from reconciler.netlink import message
from reconciler.wording import quote

_FLOW, _CACHEINFO, _VIA, _NEWDST, _PREF, _ENCAP_TYPE, _ENCAP, _EXPIRES = 11, 12, 18, 19, 20, 21, 22, 23
_TTL_PROPAGATE, _NH_ID = 26, 30
_NAMES = {
    _VIA: "via another family",
    _NEWDST: "as another destination",
    _EXPIRES: "expires",
    _TTL_PROPAGATE: "ttl-propagate",
}
# enum lwtunnel_encap_types.
_ENCAPS = {
    1: "mpls",
    2: "ip",
    3: "ila",
    4: "ip6",
    5: "seg6",
    6: "bpf",
    7: "seg6local",
    8: "rpl",
    9: "ioam6",
    10: "xfrm",
}
# RTAX_*: those that no manifest has, or that have a value which no manifest can have.
_METRICS = {metric.number: metric.word for metric in METRICS}
_METRICS |= {1: "lock", 4: "rtt", 5: "rttvar", 6: "ssthresh", 7: "cwnd", 9: "reordering", 17: "fastopen_no_cookie"}
_CONGCTL = 16
# Bytes: TCP_CA_NAME_MAX of net/tcp.h.
_NAME_MAX = 16
# rta_cacheinfo: two numbers, then the time until the route expires; 0 if it never does.
_EXPIRES_AT = slice(8, 12)
_PERVASIVE = 0x2
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}


def attribute_words(attributes: Iterable[tuple[int, bytes]]) -> Iterator[str]:
    """Yield the words of attributes of a route, or of one of its next hops, that the model does not have."""
    found = dict(attributes)
    for kind, value in found.items():
        word = _word(kind, value, found)
        if word:
            yield word


def _word(kind: int, value: bytes, found: Mapping[int, bytes]) -> str:
    if kind == _CACHEINFO:
        return "expires" if any(value[_EXPIRES_AT]) else ""
    if kind == _PREF:
        return f"pref {_number(value):02x}"
    if kind == _ENCAP:
        return "" if _ENCAP_TYPE in found else "encap"
    if kind == _ENCAP_TYPE:
        return f"encap {_ENCAPS.get(_number(value), _number(value))}"
    if kind == _FLOW:
        source, destination = divmod(_number(value), 1 << 16)
        return f"realms {source}/{destination}" if source else f"realms {destination}"
    if kind == _NH_ID:
        return f"{NEXTHOP_OBJECT}{_number(value)}"
    return _NAMES.get(kind, f"attribute {kind}")


def metric_words(nested: Iterable[tuple[int, bytes]]) -> Iterator[str]:
    """Yield the words of metrics of a route that no manifest can set."""
    for kind, value in nested:
        text = (
            quote(message.text(value, _NAME_MAX, "name of an algorithm")) if kind == _CONGCTL else str(_number(value))
        )
        yield f"{_METRICS.get(kind, f'metric-{kind}')} {text}"


def state_words(flags: int, scope: int, usual_scope: int) -> Iterator[str]:
    """Yield the words of flags and of the scope of a route; its usual scope follows from its other fields."""
    if flags & _PERVASIVE:
        yield "pervasive"
    if scope != usual_scope:
        yield f"scope {_SCOPES.get(scope, scope)}"


def _number(value: bytes) -> int:
    return message.number(value, "attribute of a route")
