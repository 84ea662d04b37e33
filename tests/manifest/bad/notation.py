"""Texts that are no YAML, or YAML that is refused."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest, nic, with_nic

ROWS: list[Row] = [
    (
        "bracket left open",
        with_nic("mtu: [1500"),
        ["bad.yaml:9:12: while parsing a flow sequence, did not find expected ',' or ']'"],
    ),
    (
        "quote left open",
        with_nic("name: 'eth0"),
        ["bad.yaml:10:1: while scanning a quoted scalar, found unexpected end of stream"],
    ),
    (
        "tab before a field",
        manifest("\tdriver: {}", "driver"),
        ["bad.yaml:3:1: while scanning a plain scalar, found a tab character that violates indentation"],
    ),
    (
        "two fields on a line",
        manifest("sandbox: web-1 driver: {}"),
        ["bad.yaml:2:22: mapping values are not allowed in this context"],
    ),
    (
        "indentation of no field",
        manifest("sandbox: web-1\n  driver: {}"),
        ["bad.yaml:3:9: mapping values are not allowed in this context"],
    ),
    (
        "text after the document",
        manifest() + "...\nweb-1: 1\n- 2\n",
        ["bad.yaml:5:1: did not find expected <document start>"],
    ),
    ("control character", manifest("sandbox: web\a1"), ["bad.yaml:2:13: unacceptable character #x0007"]),
    (
        "control character after other alphabets",
        manifest('sandbox: "Zürich-東京\x7f"'),
        ["bad.yaml:2:20: unacceptable character #x007f"],
    ),
    ("NUL", manifest() + "\0", ["bad.yaml:4:1: unacceptable character #x0000"]),
    ("duplicate key", manifest() + "sandbox: web-2\n", ['bad.yaml:4:1: duplicate key "sandbox"']),
    ("duplicate key below", with_nic('mtu: 1500\n"mtu": 9000'), ['bad.yaml:9:3: duplicate key "mtu"']),
    ("tag of a scalar", with_nic("mtu: !!int 1500"), ["bad.yaml:8:8: tags are not supported (tag:yaml.org,2002:int)"]),
    ("tag of a mapping", manifest("driver: !netns {name: web-1}"), ["bad.yaml:3:9: tags are not supported (!netns)"]),
    (
        "tag of a key",
        manifest("!!str sandbox: web-1", "sandbox"),
        ["bad.yaml:3:1: tags are not supported (tag:yaml.org,2002:str)"],
    ),
    ("tag without a name", manifest("sandbox: ! web-1"), ["bad.yaml:2:10: tags are not supported (!)"]),
    (
        "tag of Python",
        manifest("sandbox: !!python/object/apply:os.getcwd []"),
        ["bad.yaml:2:10: tags are not supported (tag:yaml.org,2002:python/object/apply:os.getcwd)"],
    ),
    (
        "merge key",
        manifest(nics=[nic()], routes=["- &first {dest: 10.8.0.0/16, device: eth0}", "- {<<: *first, metric: 5}"]),
        ["bad.yaml:12:4: merge keys (<<) are not supported; write the fields out"],
    ),
    ("alias of nothing", with_nic("mtu: *mtu"), ["bad.yaml:8:8: alias *mtu refers to no complete value above it"]),
    (
        "alias before its anchor",
        manifest("sandbox: *id", "driver: {netns: {name: &id web-1}}"),
        ["bad.yaml:2:10: alias *id refers to no complete value above it"],
    ),
    (
        "alias of another document",
        manifest("sandbox: &id web-1") + "---\n" + manifest("sandbox: *id"),
        ["bad.yaml:6:10: alias *id refers to no complete value above it"],
    ),
    (
        "alias within its anchor",
        manifest("driver: &driver {netns: *driver}"),
        ["bad.yaml:3:25: alias *driver refers to no complete value above it"],
    ),
    (
        "alias within an anchor that was another's before",
        manifest("sandbox: &it web-1", "driver: &it {netns: *it}"),
        ["bad.yaml:3:21: alias *it refers to no complete value above it"],
    ),
    (
        "alias as a key",
        manifest("sandbox: &id web-1", "*id : 1"),
        ["bad.yaml:4:1: a key must be plain text, not a list, a mapping or an alias"],
    ),
    (
        "list as a key",
        manifest("? [sandbox]\n: web-1", "sandbox"),
        ["bad.yaml:3:3: a key must be plain text, not a list, a mapping or an alias"],
    ),
    ("nested too deep", manifest(f"sandbox: {'[' * 32}{']' * 32}"), ["bad.yaml:2:41: nested deeper than 32 levels"]),
    ("never closed", "[" * 100_000, ["bad.yaml:1:33: nested deeper than 32 levels"]),
    ("directive of another YAML", "%YAML 3.0\n---\n" + manifest(), ["bad.yaml:1:1: found incompatible YAML document"]),
    ("Windows-1252", manifest().encode() + b"# \xfc\n", ["bad.yaml: not UTF-8 (byte 74)"]),
    ("UTF-16", manifest().encode("utf-16"), ["bad.yaml: not UTF-8 (byte 0)"]),
    ("surrogate in UTF-8", manifest().encode() + b"# \xed\xa0\x80\n", ["bad.yaml: not UTF-8 (byte 74)"]),
]
