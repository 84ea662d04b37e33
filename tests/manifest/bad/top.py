"""What is wrong above the sections."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest

ID = "a sandbox ID or name: 1 to 64 letters, digits, '_', '-' and '.', the first a letter or digit"
DRIVER = "one driver and its address, such as {netns: {name: web-1}}"

ROWS: list[Row] = [
    ("no apiVersion", manifest("apiVersion"), ["bad.yaml:1:1: apiVersion: missing; expected reconciler/v1"]),
    ("no sandbox", manifest("sandbox"), [f"bad.yaml:1:1: sandbox: missing; expected {ID}"]),
    ("no driver", manifest("driver"), [f"bad.yaml:1:1: driver: missing; expected {DRIVER}"]),
    (
        "other version",
        manifest("apiVersion: reconciler/v2"),
        ['bad.yaml:1:13: apiVersion: "reconciler/v2" is not valid; expected reconciler/v1'],
    ),
    (
        "version is a number",
        manifest("apiVersion: 1"),
        ["bad.yaml:1:13: apiVersion: 1 is not valid; expected reconciler/v1"],
    ),
    (
        "unknown section",
        manifest("tunnels: []"),
        [
            (
                "bad.yaml:4:1: tunnels: unknown field; "
                "expected one of: apiVersion, sandbox, driver, sysctls, interfaces, neighbours, routes, rules, ipvs, "
                "checks, paused"
            )
        ],
    ),
    (
        "misspelt section",
        manifest("Interfaces: []"),
        ['bad.yaml:4:1: Interfaces: unknown field; did you mean "interfaces"?'],
    ),
    (
        "misspelt field of the top",
        manifest("apiversion: reconciler/v1", "apiVersion"),
        [
            'bad.yaml:3:1: apiversion: unknown field; did you mean "apiVersion"?',
        ],
    ),
    (
        "empty key",
        manifest('"": 1'),
        [
            (
                "bad.yaml:4:1: unknown field; expected one of: apiVersion, sandbox, driver, sysctls, interfaces, "
                "neighbours, routes, rules, ipvs, checks, paused"
            )
        ],
    ),
    ("ID is empty", manifest("sandbox: ''"), [f'bad.yaml:2:10: sandbox: "" is not valid; expected {ID}']),
    ("ID is null", manifest("sandbox: null"), [f"bad.yaml:2:10: sandbox: nothing is given; expected {ID}"]),
    ("ID is absent text", manifest("sandbox:"), [f"bad.yaml:2:9: sandbox: nothing is given; expected {ID}"]),
    (
        "ID is a boolean",
        manifest("sandbox: true"),
        [f"bad.yaml:2:10: sandbox: true is a boolean; expected {ID}"],
    ),
    ("ID below zero", manifest("sandbox: -1"), ["bad.yaml:2:10: sandbox: -1 is below the minimum of 0"]),
    ("ID minus zero", manifest("sandbox: -0"), [f'bad.yaml:2:10: sandbox: "-0" is not valid; expected {ID}']),
    ("ID with a blank", manifest("sandbox: web 1"), [f'bad.yaml:2:10: sandbox: "web 1" is not valid; expected {ID}']),
    (
        "ID with a slash",
        manifest("sandbox: ../web-1"),
        [f'bad.yaml:2:10: sandbox: "../web-1" is not valid; expected {ID}'],
    ),
    (
        "ID of another alphabet",
        manifest("sandbox: wéb-1"),
        [f'bad.yaml:2:10: sandbox: "wéb-1" is not valid; expected {ID}'],
    ),
    ("ID of other digits", manifest("sandbox: ١٢"), [f'bad.yaml:2:10: sandbox: "١٢" is not valid; expected {ID}']),
    (
        "ID begins with a hyphen",
        manifest("sandbox: -web-1"),
        [f'bad.yaml:2:10: sandbox: "-web-1" is not valid; expected {ID}'],
    ),
    (
        "ID ends with a line end",
        manifest('sandbox: "web-1\\n"'),
        [f'bad.yaml:2:10: sandbox: "web-1\\n" is not valid; expected {ID}'],
    ),
    (
        "ID of 65 characters",
        manifest(f"sandbox: {'a' * 65}"),
        [
            (
                'bad.yaml:2:10: sandbox: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…" (65 characters) is not valid; '
                f"expected {ID}"
            )
        ],
    ),
    (
        "ID is a list",
        manifest("sandbox: [web-1]"),
        [f"bad.yaml:2:10: sandbox: a list of 1 item; expected {ID}"],
    ),
    (
        "ID is a mapping",
        manifest("sandbox: {id: web-1}"),
        [f"bad.yaml:2:10: sandbox: a mapping with id; expected {ID}"],
    ),
    (
        "section is null",
        manifest("interfaces:"),
        ["bad.yaml:4:12: interfaces: nothing is given; expected a list of the network interfaces of the sandbox"],
    ),
    (
        "section is a mapping",
        manifest("interfaces: {name: eth0}"),
        ["bad.yaml:4:13: interfaces: a mapping with name; expected a list of the network interfaces of the sandbox"],
    ),
    (
        "section is text",
        manifest("routes: default"),
        [
            (
                'bad.yaml:4:9: routes: "default" is text; expected a list of the routes of the sandbox,'
                " such as [{dest: default, gateway: 172.17.0.1, device: eth0}]"
            )
        ],
    ),
]
