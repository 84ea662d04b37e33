"""Texts that are no YAML, or YAML that is refused."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest, nic, with_ipvs, with_nic, with_service

TAB = "a tab in the indentation; YAML allows only spaces there"
MARK = (
    "a byte order mark (U+FEFF), which editors do not show; it may stand only at the beginning of a file, so delete it"
)


def colon(address: str) -> str:
    return f'{address} begins or ends with a colon, so YAML needs quotes around it: "{address}"'


def space(key: str) -> str:
    return f'a space is missing after "{key}:"'


ROWS: list[Row] = [
    (
        "bracket left open",
        with_nic("mtu: [1500"),
        ["bad.yaml:9:12: a `,` or `]` is missing before this, in the list that begins with `[` in line 8"],
    ),
    (
        "quote left open",
        with_nic("name: 'eth0"),
        ["bad.yaml:5:9: the quotes that begin here do not end"],
    ),
    (
        "tab before a field",
        manifest("\tdriver: {}", "driver"),
        [f"bad.yaml:3:1: {TAB}"],
    ),
    *(
        (f"tab {number}", manifest(text), [f"bad.yaml:{place}: {TAB}"])
        for number, (place, text) in enumerate(
            (
                ("4:1", "driver:\n\tnetns: {name: web-1}"),
                ("4:3", "driver:\n  \tnetns: {name: web-1}"),
                ("5:1", "routes:\n\t- {dest: default}"),
                ("5:2", "routes:\n-\tdest: default"),
                ("5:4", "routes:\n  -\tdest: default"),
                ("6:1", "routes:\n  - dest: default\n\tdevice: eth0"),
                ("7:5", "routes:\n  - dest: default\n\n    \tdevice: eth0"),
                ("6:1", "ipvs:\n  rules: |\n\t-A -t 172.17.0.7:80"),
            )
        )
    ),
    ("tab before a comment", manifest() + "\t# a comment\n", [f"bad.yaml:4:1: {TAB}"]),
    ("byte order mark of a second file", manifest() + "---\n\ufeff" + manifest(), [f"bad.yaml:5:1: {MARK}"]),
    ("byte order mark before a marker", manifest() + "\ufeff---\n", [f"bad.yaml:4:1: {MARK}"]),
    ("two byte order marks", "\ufeff\ufeff" + manifest(), [f"bad.yaml:1:1: {MARK}"]),
    ("byte order mark in a value", manifest("sandbox: web\ufeff-1"), [f"bad.yaml:2:13: {MARK}"]),
    *(
        (f"address with a colon: {line}", manifest(line), [f"bad.yaml:{place}: {colon(address)}"])
        for line, place, address in (
            ("paused: fd00::", "4:9", "fd00::"),
            ("paused: fd00:: # the network", "4:9", "fd00::"),
            ("paused: ::", "4:9", "::"),
            ("routes:\n- dest: default\n  gateway: fd00::\n  device: eth0", "6:12", "fd00::"),
            ("routes:\n- dest: default\n  device: eth0\n  gateway: fe80::", "7:12", "fe80::"),
            ("routes: [{dest: default, gateway: fd00::, device: eth0}]", "4:35", "fd00::"),
            ("routes: [{dest: ::/0, gateway: 'fd00::1', device: eth0}]", "4:17", "::/0"),
            ("routes: [{dest: fd01::1, gateway: ::1, device: eth0}]", "4:35", "::1"),
            ("rules: [{priority: 1, from: ::ffff:10.0.0.0/104, to: fd00::}]", "4:29", "::ffff:10.0.0.0/104"),
            ("routes:\r\n- dest: fd00::\r\n  device: eth0\r", "5:9", "fd00::"),
        )
    ),
    (
        "addresses with a colon in a list",
        with_nic("addresses:\n  - fd00::\n  - ::\n  - fd00::1/64"),
        [
            f"bad.yaml:10:7: interfaces[0].addresses[0]: {colon('fd00::')}",
            f"bad.yaml:11:7: interfaces[0].addresses[1]: {colon('::')}",
        ],
    ),
    (
        "address and port in brackets",
        with_service("tcp: [fd00::7]:80"),
        [('bad.yaml:6:10: [fd00::7]:80 begins like a list of YAML; it needs quotes around it: "[fd00::7]:80"')],
    ),
    *(
        (f"no space after a colon: {line}", manifest(line), [f"bad.yaml:{place}: {space(key)}"])
        for line, place, key in (
            ("paused:yes", "4:1", "paused"),
            ("paused:yes\nroutes: []", "4:1", "paused"),
            ("paused:yes\n\n# nothing\nroutes: []", "4:1", "paused"),
            ("routes:[]", "4:1", "routes"),
            ("driver:{netns: {name: web-1}}", "3:1", "driver"),
            ("driver: {netns:{name: web-1}}", "3:10", "netns"),
            ("routes:\n- dest:default\n  gateway: 10.0.0.1", "5:3", "dest"),
            ("routes:\n- dest: default\n  gateway:10.0.0.1\n  device: eth0", "6:3", "gateway"),
            ("routes:\n- dest: default\n  gateway:fd00::1\n  device: eth0", "6:3", "gateway"),
            ("routes:\n- dest: default\n  gateway:10.0.0.1", "6:3", "gateway"),
            ("routes:\n- dest:default\n  gateway:10.0.0.1\n  device: eth0", "5:3", "dest"),
            ("interfaces:\n- hwAddr:02:00:00:00:00:01\n  name: eth0", "5:3", "hwAddr"),
        )
    ),
    (
        "no space after a colon, in a whole file",
        "apiVersion:reconciler/v1\nsandbox:web-1\n",
        [f"bad.yaml:1:1: {space('apiVersion')}"],
    ),
    (
        "no space after a colon, in text",
        manifest("ipvs:\n  rules:|\n    -A -t 172.17.0.7:80"),
        [f"bad.yaml:5:3: ipvs: {space('rules')}"],
    ),
    (
        "no space after a colon, in braces",
        manifest(
            "driver: {netns: {name:web-1}}", "routes:\n- {dest:default, gateway: 10.0.0.1, device:eth0}\n- dest:x"
        ),
        [
            f"bad.yaml:3:18: driver.netns.name:web-1: {space('name')}",
            f"bad.yaml:5:4: routes[0].dest:default: {space('dest')}",
            f"bad.yaml:5:37: routes[0].device:eth0: {space('device')}",
            f"bad.yaml:6:3: routes[1]: {space('dest')}",
        ],
    ),
    (
        "no space after a colon, in a field that excludes others",
        with_ipvs("services: [{tcp:172.17.0.7, scheduler: rr}]"),
        [f"bad.yaml:5:15: ipvs.services[0].tcp:172.17.0.7: {space('tcp')}"],
    ),
    (
        "two fields on a line",
        manifest("sandbox: web-1 driver: {}"),
        [
            (
                "bad.yaml:2:22: a second `: ` in a line; give each field a line of its own, and put a "
                "text with `: ` in it in quotes"
            )
        ],
    ),
    (
        "indentation of no field",
        manifest("sandbox: web-1\n  driver: {}"),
        [
            (
                "bad.yaml:3:9: this is indented below a value that is complete already; begin it in the"
                " column of the field above it"
            )
        ],
    ),
    (
        "text after the document",
        manifest() + "...\nweb-1: 1\n- 2\n",
        ["bad.yaml:5:1: this is below the end of the manifest; the next one begins with `---` on a line of its own"],
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
    ("never closed", "sandbox: " + "[" * 100_000, ["bad.yaml:1:41: nested deeper than 32 levels"]),
    (
        "directive of another YAML",
        "%YAML 3.0\n---\n" + manifest(),
        ["bad.yaml:1:1: YAML: found incompatible YAML document"],
    ),
    ("Windows-1252", manifest().encode() + b"# \xfc\n", ["bad.yaml: not UTF-8 (byte 74); save it as UTF-8"]),
    (
        "UTF-16",
        manifest().encode("utf-16"),
        ["bad.yaml: not UTF-8 but UTF-16, by its byte order mark; save it as UTF-8"],
    ),
    (
        "surrogate in UTF-8",
        manifest().encode() + b"# \xed\xa0\x80\n",
        ["bad.yaml: not UTF-8 (byte 74); save it as UTF-8"],
    ),
]
