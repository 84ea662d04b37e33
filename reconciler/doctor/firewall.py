"""Reads what drops packets in a namespace: rules and policies of nftables, which those of iptables-nft are as well.

Asking loads the module nf_tables, so nobody asks a kernel that has not loaded it: such a kernel drops nothing by it.
Source: include/uapi/linux/netfilter/nf_tables.h, netfilter.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from reconciler.doctor.facts import Drop
from reconciler.errors import HostError
from reconciler.netlink import message
from reconciler.netlink.channel import NETFILTER, Channel, LocalKernel
from reconciler.netlink.engine import whole_dump
from reconciler.netlink.message import Message, attributes

# NFNL_SUBSYS_NFTABLES << 8, with NFT_MSG_NEWCHAIN, _GETCHAIN, _NEWRULE, _GETRULE.
_NEW_CHAIN, _GET_CHAIN, _NEW_RULE, _GET_RULE = 0xA03, 0xA04, 0xA06, 0xA07
_NFGENMSG = struct.Struct("=BBH")
# NFTA_CHAIN_*, NFTA_HOOK_HOOKNUM.
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _HOOK_NUMBER = 1, 3, 4, 5, 1
# NFTA_RULE_*, NFTA_LIST_ELEM, NFTA_EXPR_*.
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2, 3, 4, 1, 2
# NFTA_IMMEDIATE_DATA, NFTA_DATA_VALUE, _VERDICT, NFTA_VERDICT_CODE; NFTA_CMP_DATA; NFTA_TARGET_NAME, NFTA_MATCH_INFO.
_IMMEDIATE_DATA, _VALUE, _VERDICT, _CODE, _CMP_DATA, _TARGET_NAME, _MATCH_INFO = 2, 1, 2, 1, 3, 1, 3
_DROP = 0
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


class _Chain(NamedTuple):
    family: str
    table: str
    name: str
    hook: str
    drops: bool


class _Rule(NamedTuple):
    """A rule: whether it drops, whether it may end the walk in another way, whether it has conditions."""

    chain: tuple[str, str, str]
    handle: int
    drops: bool
    decides: bool
    conditional: bool
    mentions: tuple[bytes, ...]


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
        elif name == "reject" or (name == "target" and _text(data, _TARGET_NAME) in _DROPPING):
            drops = True
        elif name == "cmp":
            mentions.append(dict(attributes(data.get(_CMP_DATA, b""))).get(_VALUE, b""))
        elif name == "match":
            mentions.append(data.get(_MATCH_INFO, b""))
        elif name in {"lookup", "vmap", "target"}:
            decides = True
    chain = family, _text(fields, _RULE_TABLE), _text(fields, _RULE_CHAIN)
    handle = int.from_bytes(fields.get(_RULE_HANDLE, b""))
    return _Rule(chain, handle, drops, decides and not drops, conditional, tuple(mentions))


def _drops(chains: Mapping[tuple[str, str, str], _Chain], rules: list[_Rule]) -> Iterator[Drop]:
    for key, chain in chains.items():
        # Whether a rule before may have decided otherwise.
        open_ = False
        for rule in (each for each in rules if each.chain == key):
            if rule.drops:
                always = not rule.conditional and not open_
                yield Drop(*key, hook=chain.hook, always=always, handle=rule.handle, mentions=rule.mentions)
            open_ |= rule.decides
        if chain.drops:
            yield Drop(*key, hook=chain.hook, always=not open_, is_policy=True)


def _text(fields: Mapping[int, bytes], kind: int) -> str:
    return message.text(fields.get(kind, b""), _TEXT_MAX, "name of the firewall")
