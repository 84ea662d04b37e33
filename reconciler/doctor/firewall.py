"""Reads what drops packets in a namespace: rules and policies of nftables, which those of iptables-nft are as well.

Asking loads the module nf_tables, so nobody asks a kernel that has not loaded it: such a kernel drops nothing by it.
Source: include/uapi/linux/netfilter/nf_tables.h, netfilter.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterator, Mapping

from reconciler.doctor.facts import Drop
from reconciler.errors import HostError
from reconciler.netlink import message
from reconciler.netlink.channel import NETFILTER, Channel, LocalKernel
from reconciler.netlink.engine import whole_dump
from reconciler.netlink.message import Message, attributes
from reconciler.values import NamedTuple

# NFNL_SUBSYS_NFTABLES << 8, with NFT_MSG_NEWCHAIN, _GETCHAIN, _NEWRULE, _GETRULE.
_NEW_CHAIN, _GET_CHAIN, _NEW_RULE, _GET_RULE = 0xA03, 0xA04, 0xA06, 0xA07
_NFGENMSG = struct.Struct("=BBH")
# NFTA_CHAIN_*, NFTA_HOOK_HOOKNUM.
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _HOOK_NUMBER = 1, 3, 4, 5, 1
# NFTA_RULE_*, NFTA_LIST_ELEM, NFTA_EXPR_*.
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2, 3, 4, 1, 2
# NFTA_IMMEDIATE_DATA, NFTA_DATA_VALUE, _VERDICT, NFTA_VERDICT_CODE; NFTA_CMP_DATA; NFTA_TARGET_NAME, NFTA_MATCH_INFO.
_IMMEDIATE_DATA, _VALUE, _VERDICT, _CODE, _CMP_DATA, _TARGET_NAME, _MATCH_INFO = 2, 1, 2, 1, 3, 1, 3
# NF_DROP; NFTA_COUNTER_PACKETS.
_DROP, _PACKETS = 0, 2
# NFTA_VERDICT_CHAIN; and more chains than anyone walks through.
_TO, _DEEPEST = 2, 16
# Expressions that no packet fails at.
_NO_CONDITION = {"immediate", "counter", "log", "target", "reject", "notrack", "masq", "nat"}
# Targets of iptables-nft that drop.
_DROPPING = {"DROP", "REJECT"}
# NFPROTO_*.
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_HOOKS = {"arp": ("input", "output", "forward"), "netdev": ("ingress", "egress")}
_IP_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_TEXT_MAX = 256
_MODULES, _BUILTIN = "/proc/modules", "/lib/modules/{}/modules.builtin"


# Family, table, chain.
_Key = tuple[str, str, str]


class _Chain(NamedTuple):
    family: str
    table: str
    name: str
    hook: str
    drops: bool


class _Rule(NamedTuple):
    """A rule: whether it drops, whether it may end the walk in another way, whether it has conditions.

    `to`: the chain that it goes on in, or "".
    """

    chain: _Key
    handle: int
    to: str
    drops: bool
    decides: bool
    conditional: bool
    mentions: tuple[bytes, ...]
    packets: int


def read(kernel: LocalKernel, modules: Collection[str] | None) -> tuple[Drop, ...]:
    """Return what drops packets. `modules`: those that are loaded; None: the kernel loads none.

    HostError if this user may not look.
    """
    if modules is not None and "nf_tables" not in modules:
        return ()
    channel = kernel.open(NETFILTER)
    try:
        chains = [_chain(each) for each in _dump(channel, _GET_CHAIN) if each.type == _NEW_CHAIN]
        based = {(each.family, each.table, each.name): each for each in chains if each and each.hook}
        if not based:
            return ()
        rules = [_rule(each) for each in _dump(channel, _GET_RULE) if each.type == _NEW_RULE]
    finally:
        channel.close()
    return tuple(_drops(based, rules))


def _dump(channel: Channel, kind: int) -> list[Message]:
    def request(sequence: int) -> bytes:
        return message.pack(kind, message.REQUEST | message.DUMP, sequence, _NFGENMSG.pack(0, 0, 0))

    def check(answers: list[Message]) -> None:
        failed = message.failure(answers[-1]) if answers and answers[-1].type in {message.ERROR, message.DONE} else None
        # A kernel without nf_tables answers EINVAL or EOPNOTSUPP.
        if failed and failed.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
            raise HostError(f"the firewall cannot be read: {failed}")

    return whole_dump(channel, request, iter(range(1, 1 << 30)).__next__, "the firewall changes", check)


def _chain(found: Message) -> _Chain | None:
    family = _FAMILIES.get(found.payload[0], "")
    fields = dict(attributes(found.payload, _NFGENMSG.size))
    hook = dict(attributes(fields.get(_CHAIN_HOOK, b"")))
    number = int.from_bytes(hook.get(_HOOK_NUMBER, b""))
    hooks = _HOOKS.get(family, _IP_HOOKS)
    name = hooks[number] if _CHAIN_HOOK in fields and number < len(hooks) else ""
    drops = fields.get(_CHAIN_POLICY, b"\1") == bytes(4)
    return _Chain(family, _text(fields, _CHAIN_TABLE), _text(fields, _CHAIN_NAME), name, drops)


def _rule(found: Message) -> _Rule:
    family = _FAMILIES.get(found.payload[0], "")
    fields = dict(attributes(found.payload, _NFGENMSG.size))
    drops = decides = conditional = False
    packets, to = 0, ""
    mentions: list[bytes] = []
    for _, each in attributes(fields.get(_RULE_EXPRESSIONS, b"")):
        expression = dict(attributes(each))
        name, data = _text(expression, _EXPRESSION_NAME), dict(attributes(expression.get(_EXPRESSION_DATA, b"")))
        conditional |= name not in _NO_CONDITION
        if name == "immediate":
            verdict = dict(attributes(dict(attributes(data.get(_IMMEDIATE_DATA, b""))).get(_VERDICT, b"")))
            if _CODE in verdict:
                drops |= int.from_bytes(verdict[_CODE], signed=True) == _DROP
                decides |= int.from_bytes(verdict[_CODE], signed=True) != _DROP
                to = _text(verdict, _TO)
        elif name == "reject" or (name == "target" and _text(data, _TARGET_NAME) in _DROPPING):
            drops = True
        elif name == "counter":
            packets = int.from_bytes(data.get(_PACKETS, b""))
        elif name == "cmp":
            mentions.append(dict(attributes(data.get(_CMP_DATA, b""))).get(_VALUE, b""))
        elif name == "match":
            mentions.append(data.get(_MATCH_INFO, b""))
        elif name in {"lookup", "vmap", "target"}:
            decides = True
    chain = family, _text(fields, _RULE_TABLE), _text(fields, _RULE_CHAIN)
    handle = int.from_bytes(fields.get(_RULE_HANDLE, b""))
    return _Rule(chain, handle, to, drops, decides and not drops, conditional, tuple(mentions), packets)


def _drops(chains: Mapping[_Key, _Chain], rules: list[_Rule]) -> Iterator[Drop]:
    of: dict[_Key, list[_Rule]] = {}
    for rule in rules:
        of.setdefault(rule.chain, []).append(rule)
    for key, chain in chains.items():
        yield from _walk(of, key, chain.hook, (), is_open=False)
        if chain.drops:
            yield Drop(*key, hook=chain.hook, always=not any(each.decides for each in of.get(key, ())), is_policy=True)


def _walk(
    of: Mapping[_Key, list[_Rule]], key: _Key, hook: str, way: tuple[_Key, ...], *, is_open: bool
) -> Iterator[Drop]:
    """Yield what drops in a chain and in those that it leads to. `way`: the chains before it.

    `is_open`: something before may have let a packet pass, or not have led it here.
    """
    if key in way or len(way) > _DEEPEST:
        return
    for number, rule in enumerate(of.get(key, ()), 1):
        always = not rule.conditional and not is_open
        if rule.drops:
            yield Drop(
                *key,
                hook=hook,
                always=always,
                handle=rule.handle,
                mentions=rule.mentions,
                packets=rule.packets,
                number=number,
            )
        elif rule.to:
            yield from _walk(of, (*key[:2], rule.to), hook, (*way, key), is_open=not always)
        is_open |= rule.decides


def _text(fields: Mapping[int, bytes], kind: int) -> str:
    return message.text(fields.get(kind, b""), _TEXT_MAX, "name of the firewall")
