"""`explain` describes each field of a manifest from the schema, and says what an unknown one may mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.manifest.fields import every, find
from reconciler.manifest.schema import schema_text
from reconciler.wording import nearest

FIELDS = list(every())
SCHEMA: dict[str, Any] = json.loads(schema_text())


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def explain(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["explain", *words])
    return code, *capsys.readouterr()


def wrong(capsys: pytest.CaptureFixture[str], path: str) -> str:
    code, out, err = explain(capsys, path)
    assert (code, out) == (2, "")
    return err.removeprefix("reconciler: ").removesuffix("\n")


def test_a_list_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    expected = """\
routes[].nexthops
  a list of 2 to 64 next hops, in place of gateway and device

  type     list of 2 to 64 items
  needed   no
  default  none; without it: the route has one next hop: gateway and device
  example  nexthops:
           - {gateway: 172.17.0.1, device: eth0}
           - {gateway: 172.18.0.1, device: eth1, weight: 3}

fields of each item (* is needed):
  gateway  the IP address of the next hop, or an empty string for none; without
           one, the destination itself is on the link
* device   the interface that the packets leave by: its name in `interfaces`, or
           lo
  weight   a share of the traffic from 1 to 256, relative to the other next hops
  onLink   true or false: whether the gateway is on the link although no address
           or route covers it
"""
    assert explain(capsys, "routes.nexthops") == (0, expected, "")


def test_a_single_value(capsys: pytest.CaptureFixture[str]) -> None:
    expected = """\
ipvs.services[].netmask
  a netmask such as 255.255.255.0, or for IPv6 a prefix length from 1 to 128

  type     text of 1 to 15 characters or integer from 1 to 128
  needed   no
  default  none; without it: each client address is persistent by itself
  rule     needs persistent beside it
  example  netmask: 255.255.255.0
           netmask: 64
"""
    assert explain(capsys, "ipvs.services[3].netmask") == (0, expected, "")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("apiVersion", "type     reconciler/v1"),
        ("driver", "rule     exactly one of: netns, vm, libvirt, kata"),
        ("driver.vm", "rule     exactly one of: name, agent, qmp and agent, qmp and guestAgent, qmp"),
        ("routes.table", "type     integer from 1 to 4294967295"),
        ("rules.tos", "type     integer from 0 to 252, a multiple of 4"),
        ("routes.type", "default  unicast"),
        ("interfaces.addresses", "items    text of at most 64 characters or mapping"),
        ("interfaces.addresses", "default  []"),
        ("routes.onLink", "type     true or false"),
        ("interfaces.sysctls.rp_filter", "default  none; without it: it is left alone"),
        ("ipvs.services.servers", "* address"),
        ("ipvs.services[0]", "rule     exactly one of: tcp, udp, sctp, fwmark"),
        ("sandbox", "needed   yes"),
    ],
)
def test_type_limits_and_default(path: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{words}\n" in explain(capsys, path)[1].replace("\n  ", "\n") or f"\n{words}" in explain(capsys, path)[1]


def test_without_a_path_all_sections_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = explain(capsys)
    assert (code, out.splitlines()[0]) == (0, "the manifest")
    for name in ("* apiVersion", "* driver", "  interfaces", "  ipvs"):
        assert f"\n{name} " in out


def names(at: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of all fields of a schema, by another reading of it."""
    resolved = SCHEMA["$defs"][at["$ref"].removeprefix("#/$defs/")] | at if "$ref" in at else at
    for name, below in resolved.get("properties", {}).items():
        if "not" not in below or below["not"]:
            yield f"{path}.{name}".lstrip(".")
            yield from names(below, f"{path}.{name}")
    if "items" in resolved:
        yield from names(resolved["items"], f"{path}[]")


def test_all_fields_of_the_schema_are_there() -> None:
    assert [each.path for each in FIELDS] == list(names(SCHEMA))
    assert len(FIELDS) > 250


def test_every_field_is_explained_also_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for field in FIELDS:
        code, out, err = explain(capsys, field.path)
        assert (code, err, out.splitlines()[0]) == (0, "", field.path)
        description, _, rest = out.partition("\n\n")
        assert " ".join(description.split()[1:]) == " ".join(field.schema["description"].split())
        before, example, after = rest.partition("  example  ")
        assert example
        # Lines of examples, and names of sysctls, are not broken.
        shown = [*before.splitlines(), *after.partition("\n\n")[2].splitlines()]
        assert [line for line in shown if len(line) > 40 and " " in line.strip("* ")] == []


def test_every_spelling_of_a_path_leads_to_its_field() -> None:
    for field in FIELDS:
        spelt = [field.path.replace("[]", index) for index in ("[]", "[0]", "[17]", "[*]", "", ".0")]
        assert {find(path).path for path in (*spelt, f".{field.path}", f"$.{field.path}")} == {field.path}


def test_a_misspelt_field_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    all_names, tried = {each.name for each in FIELDS}, 0
    # A third of them has each kind.
    for field in FIELDS[::3]:
        at = len(field.name) // 2
        word = field.name[:at] + field.name[at + 1 :]
        before = field.path.removesuffix(field.name)
        names = find(before.removesuffix(".")).fields
        # With another word for `all`, it is a sysctl of an interface.
        if word in all_names or nearest(word, names) != field.name or ".conf." in field.name:
            continue
        expected = f'unknown field; did you mean "{field.path.replace("[]", "")}"?'
        assert wrong(capsys, before + word) == f"{before}{word}: {expected}"
        tried += 1
    assert tried > 30


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("mtu", 'mtu: unknown field; did you mean "interfaces.mtu" or "routes.mtu"?'),
        ("net.ipv4.ip_forward", 'net.ipv4.ip_forward: unknown field; did you mean "sysctls.net.ipv4.ip_forward"?'),
        ("routes[0].dst", 'routes[].dst: unknown field; did you mean "routes.dest"?'),
        ("Routes", 'Routes: unknown field; did you mean "routes"?'),
        ("routes.scheduler", 'routes.scheduler: unknown field; did you mean "ipvs.services.scheduler"?'),
        ("zzz", f"zzz: unknown field; expected one of: {', '.join(find('').fields)}"),
        ("sysctls.zzz", "sysctls.zzz: unknown field; `reconciler explain sysctls` lists 100 fields"),
        ("sandbox.x", "sandbox.x: sandbox has no fields; `reconciler explain sandbox` describes it"),
        (
            "interfaces.sysctls.forwarding",
            "interfaces[].sysctls.forwarding: expected ipv4.forwarding or ipv6.forwarding in its place",
        ),
        (
            "sysctls.net.ipv4.conf.eth0.rp_filter",
            "sysctls.net.ipv4.conf.eth0.rp_filter: expected its last part in `sysctls` of that interface",
        ),
        ("\x1b[2Jroutes", '\\x1b[2Jroutes: unknown field; did you mean "routes"?'),
        ("sandbox[0]", "sandbox.[0]: sandbox has no fields; `reconciler explain sandbox` describes it"),
    ],
)
def test_an_unknown_field(path: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert wrong(capsys, path) == expected


def test_a_long_path_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(wrong(capsys, "x" * 100_000)) < 400
    assert len(wrong(capsys, "routes[0]" * 10_000)) < 500
