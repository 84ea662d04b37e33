"""A neighbour in each legal spelling is the same neighbour, is written with its defaults left out, and read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from reconciler.manifest import neighbour
from reconciler.manifest.check import check_sections
from reconciler.manifest.compose import compose
from reconciler.manifest.finding import Finding
from reconciler.manifest.sandbox import read_sections
from reconciler.manifest.schema import check
from reconciler.model.neighbour import Neighbour
from reconciler.values import replace
from tests.manifest.texts import SECOND, manifest, nic
from tests.manifest.texts import neighbour as neighbour_text
from tests.netlink.strategies import neighbours

PLAIN = Neighbour(address="10.0.0.1", device="eth0", hw_addr="02:42:20:6f:a3:01")
PLAIN6 = replace(PLAIN, address="fd00::1")
PROXY = Neighbour(address="10.0.0.1", device="eth0", proxy=True)

SPELLINGS: list[tuple[tuple[str, ...], Neighbour]] = [
    ((), PLAIN),
    (("proxy: false", "router: false"), PLAIN),
    (("hwAddr: 02-42-20-6F-A3-01",), PLAIN),
    (("hwAddr: 02:42:20:6F:a3:01 # the router",), PLAIN),
    (("address: '10.0.0.1'",), PLAIN),
    (("device: eth1",), replace(PLAIN, device="eth1")),
    (("address: 203.0.113.9",), replace(PLAIN, address="203.0.113.9")),
    (("address: fd00::1",), PLAIN6),
    (("address: 'FD00:0::0:1'",), PLAIN6),
    (("address: 'fd00::0.0.0.1'",), PLAIN6),
    (("address: fe80::1", "router: true"), replace(PLAIN6, address="fe80::1", router=True)),
    (("hwAddr", "proxy: true"), PROXY),
    (("address: fd00::1", "hwAddr", "proxy: true"), replace(PROXY, address="fd00::1")),
    (("address: fd00::1", "hwAddr", "proxy: true", "router: true"), replace(PROXY, address="fd00::1", router=True)),
]  # fmt: skip


def read(*listed: str) -> tuple[list[Any], list[Finding]]:
    (document,) = compose(manifest(nics=[nic(), nic(*SECOND)], neighbours=listed))
    findings = check(document)
    draft = read_sections(document, findings)
    return draft.items(neighbour.SECTION), [*findings, *check_sections(draft)]


@pytest.mark.parametrize(
    ("fields", "expected"), SPELLINGS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_each_spelling_is_the_same_neighbour(fields: tuple[str, ...], expected: Neighbour) -> None:
    assert read(neighbour_text(*fields)) == ([expected], [])


def test_an_address_may_be_on_two_links_and_known_and_proxied_on_one() -> None:
    listed = [neighbour_text(), neighbour_text("device: eth1"), neighbour_text("hwAddr", "proxy: true")]
    assert read(*listed) == ([PLAIN, replace(PLAIN, device="eth1"), PROXY], [])


def test_without_interfaces_any_device_may_be_named() -> None:
    (document,) = compose(manifest(neighbours=[neighbour_text("device: tap7")]))
    findings = check(document)
    draft = read_sections(document, findings)
    assert (draft.items(neighbour.SECTION), list(check_sections(draft))) == ([replace(PLAIN, device="tap7")], [])


WRITTEN: list[tuple[Neighbour, dict[str, Any]]] = [
    (PLAIN, {"address": "10.0.0.1", "device": "eth0", "hwAddr": "02:42:20:6f:a3:01"}),
    (PROXY, {"address": "10.0.0.1", "device": "eth0", "proxy": True}),
    (
        replace(PLAIN6, router=True),
        {"address": "fd00::1", "device": "eth0", "hwAddr": "02:42:20:6f:a3:01", "router": True},
    ),
]


@pytest.mark.parametrize(("each", "data"), WRITTEN)
def test_defaults_are_not_written(each: Neighbour, data: dict[str, Any]) -> None:
    assert neighbour.write(each) == data


@given(neighbours())
def test_what_is_written_is_read_again(wish: Neighbour) -> None:
    driver = {"netns": {"pid": 1}}
    document = {"apiVersion": "reconciler/v1", "sandbox": "a", "driver": driver, "neighbours": [neighbour.write(wish)]}
    findings = check(document)
    assert (read_sections(document, findings).items(neighbour.SECTION), findings) == ([wish], [])
