"""yaml-language-server, which editors run, has the schema's words: completion, hover, and what is wrong.

`make editors` installs it. Where it is not installed, these tests are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from reconciler.manifest.schema import schema_text
from tests.editors.install import ROOT, SERVER, is_installed
from tests.editors.server import Diagnostic, Server

pytestmark = pytest.mark.skipif(not is_installed(), reason="`make editors` installs yaml-language-server")

MODELINE = f"# yaml-language-server: $schema={ROOT}/schemas/reconciler-v1.schema.json\n"
POLICY = MODELINE.replace("reconciler-v1", "reconciler-policy-v1")
HEAD = "apiVersion: reconciler/v1\nsandbox: web-1\ndriver: {netns: {name: web-1}}\n"
SCHEMA = json.loads(schema_text())
SETTINGS = {
    # Nothing but the schema that a manifest names.
    "yaml": {"schemaStore": {"enable": False}, "validate": True, "completion": True, "hover": True, "schemas": {}},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(["node", str(SERVER), "--stdio"], ROOT / "examples", SETTINGS) as started:
        yield started


def fields(*names: str) -> set[str]:
    """Return the fields of a definition of the schema that are no mere hints."""
    at = SCHEMA["$defs"][names[0]] if names else SCHEMA
    for name in names[1:]:
        at = at["properties"][name]
    return {name for name, each in at["properties"].items() if each.get("not") != {}}


def test_nothing_is_wrong_with_an_example(server: Server) -> None:
    files = {file: file.read_text(encoding="utf-8") for file in sorted((ROOT / "examples").rglob("*.yaml"))}
    ours = {file: text for file, text in files.items() if "$schema=" in text}
    # A manifest names its schema: without it, the server would find nothing.
    assert [file.name for file, text in files.items() if "apiVersion: reconciler/" in text and file not in ours] == []
    found = server.diagnostics(list(ours.values()), [str(file) for file in ours])
    assert {file.name: each for file, each in zip(ours, found, strict=True) if each} == {}
    assert len(ours) > 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("|", {"apiVersion", "sandbox", "driver", "interfaces", "routes", "ipvs"}),
        ("apiVersion: |", {"reconciler/v1"}),
        (
            "apiVersion: reconciler/v1\nsandbox: web-1\ndriver: |",
            {"netns: a network namespace", "vm: a virtual machine"},
        ),
        ("apiVersion: reconciler/v1\nsandbox: web-1\ndriver:\n  |", {"netns", "vm", "libvirt", "kata"}),
        ("driver:\n  |", {"netns", "vm", "libvirt", "kata"}),
        ("driver:\n  n|", {"netns"}),
        ("driver:\n  netns:\n    |", {"name", "path", "pid"}),
        ("driver:\n  vm:\n    |", {"name", "qmp", "agent"}),
        ("driver:\n  kata:\n    |", {"id", "runtime"}),
        (f"{HEAD}|", fields() - {"apiVersion", "sandbox", "driver"}),
        (f"{HEAD}interfaces:\n  - |", fields("interface")),
        (f"{HEAD}interfaces:\n  - name: eth0\n    |", fields("interface") - {"name"}),
        (f"{HEAD}interfaces:\n- name: eth0\n  sysctls:\n    |", fields("interface", "sysctls")),
        (f"{HEAD}interfaces:\n- hwAddr: |", {"02:42:20:6f:a3:69"}),
        (f"{HEAD}interfaces:\n- addresses:\n  - |", {"address", "dad"}),
        (f"{HEAD}neighbours:\n  - |", fields("neighbour")),
        (f"{HEAD}routes:\n  - |", fields("route")),
        (f"{HEAD}routes:\n  - {{|}}", fields("route")),
        (f"{HEAD}routes:\n  - type: |", {"unicast", "blackhole", "unreachable", "prohibit"}),
        (f"{HEAD}routes:\n  - onLink: |", {"true", "false"}),
        (f"{HEAD}routes:\n  - nexthops:\n      - |", {"gateway", "device", "weight", "onLink"}),
        (f"{HEAD}rules:\n  - |", fields("rule")),
        (f"{HEAD}sysctls:\n  |", {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}),
        (f"{HEAD}ipvs:\n  |", fields("ipvs")),
        (f"{HEAD}ipvs:\n  services:\n    - |", fields("service")),
        (
            f"{HEAD}ipvs:\n  services:\n    - scheduler: |",
            set(SCHEMA["$defs"]["service"]["properties"]["scheduler"]["enum"]),
        ),
        (f"{HEAD}ipvs:\n  services:\n    - tcp: 172.17.0.7:80\n      servers:\n        - |", fields("server")),
    ],
)
def test_completion(text: str, expected: set[str], server: Server) -> None:
    offered = set(server.completions(MODELINE + text))
    assert expected - offered == set()
    # A name that the schema has in order to refuse it is not offered.
    assert offered & {"forwarding", "accept_redirects", "net.ipv4.conf.all.forwarding"} == set()


def test_completion_of_a_policy(server: Server) -> None:
    assert {"drivers", "namespaces", "devices"} - set(server.completions(f"{POLICY}|")) == set()


@pytest.mark.parametrize(
    ("text", "words", "example"),
    [
        ("dri|ver: {netns: {name: web-1}}", "one driver and its address", "netns:\n  name: web-1"),
        ("driver: {ne|tns: {name: web-1}}", "a network namespace of this host", "name: web-1"),
        (f"{HEAD}interfaces:\n  - mt|u: 1500", "an MTU from 46 to 9600 bytes", "1500"),
        (f"{HEAD}interfaces:\n  - hwA|ddr: 02:42:20:6f:a3:69", "a unicast MAC address", "02:42:20:6f:a3:69"),
        (f"{HEAD}routes:\n  - gateway: 172.1|7.0.1", "the IP address of the next hop", "172.17.0.1"),
        (f"{HEAD}ipvs:\n  dra|in: 300", "the connections of a removed server", "300"),
    ],
)
def test_hover(text: str, words: str, example: str, server: Server) -> None:
    shown = server.hover(MODELINE + text)
    assert (words in shown, f"Example:\n\n```yaml\n{example}\n```" in shown) == (True, True)


MISTAKES = {
    "driver:\n  netz: {name: web-1}": [(1, 2, "Property netz is not allowed.")],
    "interfaces:\n- {name: eth0, device: tap0, hwAddr: 01:42:20:6f:a3:69, mtu: 9601}": [
        (1, 37, "not a unicast MAC address; expected six bytes such as 02:42:20:6f:a3:69, the first one even"),
        (1, 61, "Value is above the maximum of 9600."),
    ],
    "interfaces:\n- {name: 0eth, device: tap0, hwAddr: 02:42:20:6f:a3:69, mtu: 1500, addresses: [172.17.0.7]}": [
        (1, 9, "expected an interface name: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"),
        (
            1,
            79,
            "not an IP address with the prefix length of its network, such as 172.16.0.3/24 or fd00::1/64",
        ),
    ],
    "routes:\n- {dest: 10.8.0.0/33, gateway: 172.17.0, device: eth0}": [
        (1, 9, "not default, a network such as 10.8.0.0/16 or fd08::/64, or an IP address"),
        (1, 31, "not an IP address such as 172.17.0.1 or fd00:17::1"),
    ],
    "ipvs: {services: [{tcp: 172.17.0.7}]}": [
        (0, 24, 'not an address and port such as "172.17.0.7:80" or "[fd00::7]:80"'),
    ],
    "neighbours: [{address: web, device: eth0}]": [(0, 23, "not an IP address such as 172.17.0.7 or fd00:17::7")],
    "rules: [{priority: 100, from: web, table: 100}]": [
        (0, 30, "not a network such as 10.8.0.0/16 or fd08::/64, nor an IP address")
    ],
    "routes:\n- {dst: 10.8.0.0/16, device: eth0}": [
        (1, 2, 'Missing property "dest".'),
        (1, 3, "Property dst is not allowed."),
    ],
}


def test_what_is_wrong(server: Server) -> None:
    driver = "driver: {netns: {name: web-1}}\n"
    heads = [MODELINE + HEAD.replace(driver, "") + ("" if text.startswith("driver") else driver) for text in MISTAKES]
    found = server.diagnostics([head + text for head, text in zip(heads, MISTAKES, strict=True)])
    shown = [
        [Diagnostic(each.line - head.count("\n"), each.column, each.message) for each in some]
        for head, some in zip(heads, found, strict=True)
    ]
    assert dict(zip(MISTAKES, shown, strict=True)) == MISTAKES
