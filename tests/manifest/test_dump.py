"""What is written is read as the same by any reader of YAML, and as people write it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.manifest.compose import compose
from reconciler.manifest.dump import dump
from tests.examples import examples
from tests.manifest.plain import TRAPS, data, texts

# Plain scalars that are no text. https://yaml.org/type/ (the base 10 float there has a slip, [0-9.]* for [0-9_]*).
YAML_1_1 = {
    "null": r"~|null|Null|NULL|",
    "bool": r"y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
    "int": r"[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+",
    "float": r"[-+]?([0-9][0-9_]*)?\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*\.([eE][-+][0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "timestamp": r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}"
    r"(\.[0-9]*)?([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?",
    "merge": "<<",
    "value": "=",
}
# https://yaml.org/spec/1.2.2/, 10.3.2.
YAML_1_2 = {
    "null": r"null|Null|NULL|~|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
}
# JSON's numbers, and the octal and binary of other readers.
ELSEWHERE = {"number": r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?|0o[0-7_]+|0b[01_]+"}

RETYPED = {
    f"{version} {kind}": pattern
    for version, kinds in (("1.1", YAML_1_1), ("1.2", YAML_1_2), ("elsewhere", ELSEWHERE))
    for kind, pattern in kinds.items()
}


def is_quoted(text: str) -> bool:
    """Return whether a text is quoted as an item, as a value and as a key."""
    item, value, key = dump([[text]]), dump([{"a": text}]), dump([{text: 1}])
    return all(
        re.match(start, written)
        for start, written in ((r"\[['\"]", item), (r"\{a: ['\"]", value), (r"\{(\? )?['\"]", key))
    )


@pytest.mark.parametrize("pattern", RETYPED.values(), ids=RETYPED)
@given(st.data())
@settings(max_examples=examples(40), deadline=None)
def test_what_a_reader_would_take_for_something_else_is_quoted(pattern: str, draw: st.DataObject) -> None:
    text = draw.draw(
        st.from_regex(re.compile(rf"(?:{pattern})", re.ASCII), fullmatch=True).filter(lambda it: len(it) < 100)
    )
    assert (text, is_quoted(text)) == (text, True)


@pytest.mark.parametrize("text", TRAPS)
def test_traps_are_quoted(text: str) -> None:
    assert (text, is_quoted(text)) == (text, True)


@pytest.mark.parametrize("text", ["10.0.0.0/16", "10.0.0.1", "eth0", "web-1", "default", "/run/a", "1e3f", "6ec7a98"])
def test_other_text_is_plain(text: str) -> None:
    assert (dump([[text]]), dump([{text: text}])) == (f"[{text}]\n", f"{{{text}: {text}}}\n")


@given(texts())
@settings(max_examples=examples(250), deadline=None)
def test_text_is_the_same_to_yaml_1_1_and_to_us(text: str) -> None:
    for value in (text, [text], {"a": text}, {text: [[text]]}):
        assert compose(dump([value])) == [value]
        assert yaml.safe_load(dump([value])) == value


@given(data())
@settings(max_examples=examples(150), deadline=None)
def test_data_is_the_same_to_yaml_1_1(value: Any) -> None:
    assert list(yaml.safe_load_all(dump([value, value]))) == [value, value]


def test_manifests_look_as_people_write_them() -> None:
    shared = ["10.0.0.2/24", "fd00::2/64", {"address": "fd00::3/64", "dad": False}]
    document = {
        "apiVersion": "reconciler/v1",
        "sandbox": "1e3",
        "driver": {"netns": {"name": "on"}},
        "interfaces": [
            {"name": "eth0", "device": "tap0", "hwAddr": "52:54:00:12:34:56", "mtu": 1500, "addresses": shared[:2]},
            {"name": "eth1", "device": "tap1", "hwAddr": "02:42:20:6f:a3:69", "mtu": 1500, "addresses": shared},
        ],
        "routes": [],
    }
    assert dump([document, {"addresses": [shared[2], shared[2]]}]) == WRITTEN


WRITTEN = """\
apiVersion: reconciler/v1
sandbox: "1e3"
driver:
  netns: {name: 'on'}
interfaces:
- name: eth0
  device: tap0
  hwAddr: '52:54:00:12:34:56'
  mtu: 1500
  addresses: [10.0.0.2/24, 'fd00::2/64']
- name: eth1
  device: tap1
  hwAddr: 02:42:20:6f:a3:69
  mtu: 1500
  addresses:
  - 10.0.0.2/24
  - fd00::2/64
  - {address: 'fd00::3/64', dad: false}
routes: []
---
addresses:
- {address: 'fd00::3/64', dad: false}
- {address: 'fd00::3/64', dad: false}
"""
