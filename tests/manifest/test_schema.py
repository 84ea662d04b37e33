"""The schema is a good one, and what it refuses is explained in full."""

from __future__ import annotations

import copy
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reconciler.manifest import finding, schema
from reconciler.manifest.check import check_sections
from reconciler.manifest.finding import path_text
from reconciler.manifest.sandbox import read_sections, write
from reconciler.manifest.schema import check, enforced, schema_text
from reconciler.model.ipvs import (
    DRAINING,
    FORWARDS,
    FWMARK,
    NAMED_SCHEDULER_FLAGS,
    PERSISTENCE_ENGINES,
    PROTOCOLS,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    SYSCTLS,
    TUN_CHECKSUMS,
    TUN_TYPES,
    Timeouts,
)
from reconciler.model.machine import SOCKET_PATH_MAX
from reconciler.model.made import KINDS
from reconciler.model.sandbox import NetnsAddress
from reconciler.model.sysctl import OF_NIC, OF_SANDBOX
from reconciler.values import replace
from tests.examples import examples
from tests.manifest.plain import data
from tests.manifest.services import sections
from tests.manifest.test_bad_manifests import ROWS
from tests.manifest.test_compose import outcome
from tests.strategies import sandboxes

SCHEMA: dict[str, Any] = json.loads(schema_text())
# What an editor checks by, and what reconciler itself does: without the patterns that are for editors.
PUBLISHED = jsonschema_rs.Draft202012Validator(schema_text())
GATE = jsonschema_rs.Draft202012Validator(enforced())
ORACLE = Draft202012Validator(enforced())
DEFINITIONS = {"$defs": SCHEMA["$defs"]}

DOCUMENTS = [
    pytest.param(document, id=name)
    for name, text, _ in ROWS
    if isinstance(text, str) and isinstance(documents := outcome(text), list)
    for document in documents
]


def schemas(at: Any = SCHEMA, path: finding.Path = ()) -> Iterator[tuple[finding.Path, dict[str, Any]]]:
    """Yield each schema of a value in the file, and its path; a reference is its target, with what stands beside it."""
    resolved = SCHEMA["$defs"][at["$ref"].removeprefix("#/$defs/")] | at if "$ref" in at else at
    yield path, resolved
    for name, below in resolved.get("properties", {}).items():
        # A name that is refused, with a hint, is no field.
        if below.get("not") != {}:
            yield from schemas(below, (*path, name))
    if "items" in resolved:
        yield from schemas(resolved["items"], (*path, 0))


ALL = list(schemas())
each_schema = pytest.mark.parametrize(
    "part", [part for _, part in ALL], ids=[path_text(path) or "root" for path, _ in ALL]
)


def test_it_meets_its_own_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_fields_are_these() -> None:
    assert [path_text(path) for path, _ in ALL] == [
        "",
        "apiVersion",
        "sandbox",
        "driver",
        "driver.netns",
        *(f"driver.netns.{name}" for name in ("name", "path", "pid")),
        "driver.vm",
        *(f"driver.vm.{name}" for name in ("name", "qmp", "agent", "guestAgent")),
        "driver.libvirt",
        *(f"driver.libvirt.{name}" for name in ("domain", "uri", "guestAgent")),
        "driver.kata",
        *(f"driver.kata.{name}" for name in ("id", "runtime")),
        "sysctls",
        *(f"sysctls.{name}" for name in OF_SANDBOX),
        "interfaces",
        "interfaces[0]",
        *(
            f"interfaces[0].{name}"
            for name in ("name", "device", "hwAddr", "mtu", "state", "addresses", "addresses[0]")
        ),
        *(f"interfaces[0].addresses[0].{name}" for name in ("address", "peer", "dad", "label", "scope")),
        *(f"interfaces[0].addresses[0].{name}" for name in ("metric", "noprefixroute")),
        *(
            f"interfaces[0].{path}"
            for kind, found in KINDS.items()
            for path in (kind, *([f"{kind}.link"] * found.on_link), *(f"{kind}.{each.name}" for each in found.options))
        ),
        *(f"interfaces[0].{name}" for name in ("master", "queues", "vhostUserSocket", "sysctls")),
        *(f"interfaces[0].sysctls.{name}" for name in OF_NIC),
        *(f"interfaces[0].{name}" for name in ("alias", "altnames", "altnames[0]")),
        *(f"interfaces[0].{name}" for name in ("txQueueLen", "gsoMaxSize", "arp", "allmulticast")),
        "neighbours",
        "neighbours[0]",
        *(f"neighbours[0].{name}" for name in ("address", "device", "hwAddr", "proxy", "router")),
        "routes",
        "routes[0]",
        *(f"routes[0].{name}" for name in ("dest", "gateway", "device", "onLink", "type", "nexthops", "nexthops[0]")),
        *(f"routes[0].nexthops[0].{name}" for name in ("gateway", "device", "weight", "onLink")),
        *(
            f"routes[0].{name}"
            for name in (
                "table",
                "metric",
                "source",
                "mtu",
                "mtuLock",
                "advmss",
                "window",
                "hoplimit",
                "initcwnd",
                "initrwnd",
                "rtoMin",
                "quickack",
                "congctl",
            )
        ),
        "routes[0].features",
        "routes[0].features[0]",
        *(f"routes[0].{name}" for name in ("scope", "pref", "tos")),
        "rules",
        "rules[0]",
        *(f"rules[0].{name}" for name in ("priority", "family", "from", "to", "iif", "oif", "fwmark", "ipproto")),
        *(f"rules[0].{name}" for name in ("sport", "dport", "uidrange", "tos", "invert")),
        *(f"rules[0].{name}" for name in ("table", "l3mdev", "goto", "action", "suppressPrefixlength")),
        "ipvs",
        "ipvs.timeouts",
        *(f"ipvs.timeouts.{name}" for name in Timeouts._fields),
        "ipvs.sysctls",
        *(f"ipvs.sysctls.{name}" for name in SYSCTLS),
        *(f"ipvs.{name}" for name in ("exclude", "exclude[0]", "exclude[0].fwmark", "drain", "guard", "services")),
        "ipvs.services[0]",
        *(f"ipvs.services[0].{name}" for name in (*PROTOCOLS, FWMARK, "family", "scheduler")),
        *(f"ipvs.services[0].{name}" for name in ("schedulerFlags", "schedulerFlags[0]", "persistent", "netmask")),
        *(f"ipvs.services[0].{name}" for name in ("persistenceEngine", "onePacket", "ignore", "ignore[0]")),
        *(f"ipvs.services[0].{name}" for name in ("servers", "servers[0]")),
        *(f"ipvs.services[0].servers[0].{name}" for name in ("address", "weight", "forward")),
        *(f"ipvs.services[0].servers[0].{name}" for name in ("upperThreshold", "lowerThreshold")),
        *(f"ipvs.services[0].servers[0].{name}" for name in ("tunType", "tunPort", "tunChecksum")),
        "ipvs.rules",
        "ipvs.rulesFile",
        "checks",
        "checks[0]",
        *(f"checks[0].{name}" for name in ("ping", "tcp", "http", "route", "connects", "connects.service", "device")),
        *(f"checks[0].{name}" for name in ("expect", "timeout", "count", "from", "required", "onRepair")),
        "paused",
    ]


def test_what_is_chosen_from_is_what_the_model_has() -> None:
    service, server = (SCHEMA["$defs"][name]["properties"] for name in ("service", "server"))
    assert service["scheduler"]["enum"] == list(SCHEDULERS)
    flags = [*SCHEDULER_FLAGS, *(flag for flags in NAMED_SCHEDULER_FLAGS.values() for flag in flags)]
    assert service["schedulerFlags"]["items"]["enum"] == flags
    assert service["persistenceEngine"]["enum"] == list(PERSISTENCE_ENGINES)
    assert service["ignore"]["items"]["enum"] == ["weight"]
    assert [server[name]["enum"] for name in ("forward", "tunType", "tunChecksum")] == [
        list(FORWARDS),
        list(TUN_TYPES),
        list(TUN_CHECKSUMS),
    ]
    # What is drained until a moment has that as its threshold.
    assert SCHEMA["$defs"]["threshold"]["maximum"] == DRAINING - 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_link_has_the_options_of_the_model(kind: str) -> None:
    schema = SCHEMA["$defs"]["interface"]["properties"][kind]
    found, options = schema["properties"], {each.name: each for each in KINDS[kind].options}
    assert found.keys() - {"link"} == options.keys()
    assert ("link" in found) == KINDS[kind].on_link
    needed = [name for name, each in options.items() if each.default is None]
    assert set(schema.get("required", ())) == {*needed, *(["link"] * KINDS[kind].on_link)}
    for name, option in options.items():
        assert found[name].get("default") == option.default
        assert found[name].get("enum", []) == list(option.names)
        most = found[name].get("maximum", 0) * option.unit
        assert most < 1 << 8 * struct.calcsize(option.form)


def test_a_path_of_a_socket_is_one_that_the_kernel_takes() -> None:
    fields = {path[-1]: part for path, part in ALL if path and path[-1] in {"qmp", "agent", "vhostUserSocket"}}
    lengths = {name: part["maxLength"] for name, part in fields.items()}
    # An address of the agent can be longer.
    assert lengths == dict.fromkeys(fields, SOCKET_PATH_MAX) | {"agent": len("hvsock://:4294967294") + SOCKET_PATH_MAX}
    path = "/" + "a" * (SOCKET_PATH_MAX - 1)
    for text in (path, f"hvsock://{path}:4294967294"):
        assert re.fullmatch(fields["agent"]["pattern"].removesuffix("(?!\n)"), text)
        assert not re.fullmatch(fields["agent"]["pattern"].removesuffix("(?!\n)"), text.replace("/a", "/aa"))
    assert len(fields) == 3
    # What they are made of has one byte a character.
    assert not any(re.fullmatch(part["pattern"].removesuffix("(?!\n)"), "/\u00e4") for part in fields.values())


@each_schema
def test_every_field_is_described(part: dict[str, Any]) -> None:
    assert len(part["description"].split()) > 1 or part["description"] == part["const"]


@each_schema
def test_every_field_has_examples_that_are_valid(part: dict[str, Any]) -> None:
    alone = Draft202012Validator({name: value for name, value in part.items() if name != "$ref"} | DEFINITIONS)
    assert [example for example in part["examples"] if not alone.is_valid(example)] == []
    assert part["examples"] != []


@each_schema
def test_no_field_shows_a_regular_expression_to_people(part: dict[str, Any]) -> None:
    assert "pattern" not in part or part.keys() & {"patternErrorMessage", "errorMessage"}


def test_without_an_optional_field_there_is_its_default_or_what_the_schema_says() -> None:
    parents = dict(ALL)
    optional = [
        (path, part)
        for path, part in ALL
        if path
        and path[-1] != 0
        and path[-1] not in parents[path[:-1]].get("required", ())
        # What holds for a sysctl is said once, of all of them.
        and path[-2:-1] != ("sysctls",)
    ]
    assert [path_text(path) for path, part in optional if ("default" in part) == ("absent" in part)] == []
    assert len(optional) > 60


@each_schema
def test_a_default_is_valid(part: dict[str, Any]) -> None:
    alone = Draft202012Validator({name: value for name, value in part.items() if name != "$ref"} | DEFINITIONS)
    assert "default" not in part or alone.is_valid(part["default"])


@pytest.mark.parametrize("name", sorted({str(path[-1]) for path, _ in ALL if path and path[-1] != 0}))
def test_every_field_is_in_the_docs(name: str) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text(encoding="utf-8")
    words = {word for code in re.findall(r"`([^`\n]+)`", manual) for word in re.findall(r"[\w.]+|\w+", code)}
    words |= {part for word in words for part in word.split(".")}
    # Sysctls of all and of later interfaces have the names of those of one.
    assert name in words or (name in OF_SANDBOX and ".conf." in name and name.rpartition(".")[2] in words)


@each_schema
def test_every_mapping_is_closed_and_every_list_and_text_is_bounded(part: dict[str, Any]) -> None:
    types = part.get("type", [])
    bounds = {"object": "additionalProperties", "array": "maxItems", "string": "maxLength", "integer": "minimum"}
    needed = {bounds[kind] for kind in ([types] if isinstance(types, str) else types) if kind in bounds}
    assert needed - part.keys() == set()
    assert part.get("additionalProperties", False) is False


@each_schema
def test_patterns_are_whole_to_any_engine(part: dict[str, Any]) -> None:
    # To Python's `re` a bare `$` matches before a line end as well, and `\\d` and `\\w` take other alphabets.
    pattern = part.get("pattern", "^$(?!\n)")
    assert (pattern[0], pattern.partition("$")[2], "\\d" in pattern, "\\w" in pattern) == ("^", "(?!\n)", False, False)


def test_100_000_routes_and_no_more() -> None:
    document = {"apiVersion": "reconciler/v1", "sandbox": "web-1", "driver": {"netns": {"pid": 1}}}
    routes = [{"dest": "10.8.0.0/16"}] * 100_000
    assert (
        GATE.is_valid(document | {"routes": routes}),
        GATE.is_valid(document | {"routes": [*routes, routes[0]]}),
    ) == (
        True,
        False,
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_both_engines_agree_on_bad_manifests_and_what_is_refused_is_explained(document: Any) -> None:
    assert (ORACLE.is_valid(document), check(document) == []) == (GATE.is_valid(document),) * 2


# A manifest with each field that has a pattern for editors, and further such fields of other services.
WHOLE: dict[str, Any] = {
    "apiVersion": "reconciler/v1",
    "sandbox": "web-1",
    "driver": {"netns": {"name": "web-1"}},
    "interfaces": [
        {
            "name": "eth0",
            "device": "tap0",
            "hwAddr": "02:42:20:6f:a3:69",
            "mtu": 1500,
            "addresses": ["172.17.0.7/16", {"address": "fd00:17::7", "peer": "fd00:17::8/64"}],
        }
    ],
    "neighbours": [{"address": "172.17.0.1", "device": "eth0", "hwAddr": "02:42:20:6f:a3:01"}],
    "routes": [
        {"dest": "10.8.0.0/16", "gateway": "172.17.0.1", "device": "eth0", "source": "172.17.0.7"},
        {"dest": "10.9.0.0/16", "nexthops": [{"gateway": f"172.17.0.{n}", "device": "eth0"} for n in (1, 2)]},
    ],
    "rules": [{"priority": 100, "from": "10.1.0.0/16", "to": "10.2.0.0/16", "table": 100}],
    "ipvs": {
        "exclude": ["10.9.0.0/24"],
        "services": [
            {
                "tcp": "172.17.0.7:80",
                "persistent": 300,
                "netmask": "255.255.255.0",
                "servers": [{"address": "172.17.0.4:80"}],
            },
            {"udp": "172.17.0.7:53"},
            {"sctp": "172.17.0.7:2905"},
        ],
    },
    "checks": [
        {"ping": "172.17.0.1"},
        {"tcp": "192.0.2.1:443"},
        {"route": "192.0.2.1"},
        {"connects": {"service": "172.17.0.7:80"}},
    ],
}


def of_editors(at: Any = SCHEMA, value: Any = WHOLE, path: finding.Path = ()) -> Iterator[finding.Path]:
    """Yield the path of each text of WHOLE that has a pattern for editors."""
    resolved = SCHEMA["$defs"][at["$ref"].removeprefix("#/$defs/")] | at if "$ref" in at else at
    if isinstance(value, str) and "patternErrorMessage" in resolved:
        yield path
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from of_editors(resolved["items"], item, (*path, index))
    if isinstance(value, dict):
        for name, below in value.items():
            yield from of_editors(resolved["properties"][name], below, (*path, name))


EDITED = list(of_editors())


def with_text(path: finding.Path, text: str) -> dict[str, Any]:
    """Return WHOLE with another text at a path."""
    document: Any = copy.deepcopy(WHOLE)
    at = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = text
    return document  # type: ignore[no-any-return]


def is_accepted(document: Any) -> bool:
    """Return whether the rest of `validate` accepts a manifest: its own schema and its readers."""
    findings = list(check(document))
    draft = read_sections(document, findings)
    return findings + list(check_sections(draft)) == []


def test_what_is_enforced_has_no_pattern_for_editors() -> None:
    parts: list[Any] = [enforced()]
    for part in parts:
        parts += [each for each in (part.values() if isinstance(part, dict) else part) if isinstance(each, dict | list)]
    assert [
        part for part in parts if isinstance(part, dict) and {"pattern", "patternErrorMessage"} <= part.keys()
    ] == []
    assert len(parts) > 500


def test_all_texts_with_a_pattern_for_editors_are_tried() -> None:
    assert {path_text(path) for path, part in ALL if "patternErrorMessage" in part} == {
        path_text(tuple(0 if isinstance(step, int) else step for step in path)) for path in EDITED
    }
    assert PUBLISHED.is_valid(WHOLE)


# Spellings that `inet_pton` and the readers accept or refuse, each with what surrounds it in one of the fields.
SPELLINGS = [
    *("172.17.0.9", "0.0.0.0", "255.255.255.255", "fd00::1", "::", "::1", "1::", "FD00:0:0::A", "::ffff:172.17.0.1"),
    *("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4", "fe80::1", "default", ""),
    *(
        "172.17.0.256",
        "172.17.0",
        "172.017.0.1",
        "172.17.0.1.1",
        "1:2:3",
        "fd00::g",
        "fd00::1::2",
        "12345::",
        "localhost",
    ),
    *("02:42:20:6F:A3:69", "02-42-20-6f-a3-69", "01:42:20:6f:a3:69", "02:42:20:6f:a3", "0242206fa369", "64", "0064"),
]
AFFIXES = [
    *(("", ""), ("", "/16"), ("", "/0"), ("", "/032"), ("", "/33"), ("", "/128"), ("", "/129"), ("", "/"), ("", " ")),
    *(
        ("", ":80"),
        ("", ":0"),
        ("", ":00080"),
        ("", ":65536"),
        ("[", "]:80"),
        ("[", "]"),
        ("[", "]:"),
        ("[", ""),
        ("", "\n"),
    ),
]


@pytest.mark.parametrize("path", EDITED, ids=path_text)
def test_what_a_pattern_for_editors_refuses_is_refused(path: finding.Path) -> None:
    texts = [f"{before}{text}{after}" for text in SPELLINGS for before, after in AFFIXES]
    published = {text: PUBLISHED.is_valid(with_text(path, text)) for text in texts}
    # What an editor accepts may be wrong still, for a reason that no pattern knows.
    assert [text for text in texts if not published[text] and is_accepted(with_text(path, text))] == []
    assert 0 < sum(published.values()) < len(texts) / 3


@st.composite
def spoiled(draw: st.DrawFn) -> Any:
    """A right document with some of its values replaced, taken out or doubled."""
    sandbox = replace(
        draw(sandboxes(("tap0", "tap1", "tap2"), NetnsAddress(name="web-1"))), ipvs=draw(st.none() | sections())
    )
    document: Any = copy.deepcopy(write(sandbox))
    for _ in range(draw(st.integers(1, 4))):
        at = document
        while isinstance(at, dict | list) and at:
            step: Any = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            below = at[step]
            if isinstance(below, dict | list) and below and draw(st.booleans()):
                at = below
                continue
            match draw(st.sampled_from(("set", "set", "take", "double"))):
                case "set":
                    at[step] = draw(data())
                case "take":
                    del at[step]
                case _ if isinstance(at, list):
                    at += [copy.deepcopy(below)] * draw(st.sampled_from((1, 64, 1024)))
                case _:
                    at[f"{step}s"] = below
            break
    return document


@given(spoiled())
@settings(max_examples=examples(80), deadline=None)
def test_all_of_a_spoiled_document_is_explained_and_nothing_else(document: Any) -> None:
    expected = [
        finding
        for error in ORACLE.iter_errors(document)
        for finding in schema._word(str(error.validator), error.schema, error.instance, tuple(error.absolute_path))
    ]
    assert sorted(check(document)) == sorted(set(expected))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("a",), "a"),
        ((0,), "[0]"),
        (("routes", 3, "nexthops", 0, "gateway"), "routes[3].nexthops[0].gateway"),
    ],
)
def test_paths_are_written_as_people_do(path: finding.Path, text: str) -> None:
    assert path_text(path) == text


def test_a_document_that_is_right_has_nothing_against_it() -> None:
    document = {"apiVersion": "reconciler/v1", "sandbox": 7, "driver": {"netns": {"name": 7}}}
    assert check(document) == []
