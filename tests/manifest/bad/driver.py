"""What is wrong with the address of a sandbox."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest

DRIVER = "one driver and its address, such as {netns: {name: web-1}}"
NETNS = "a network namespace of this host: one of name, path and pid"
NAME = "the name of a network namespace in /run/netns"
PATH = "the absolute path of a file that is a network namespace"
PID = "the ID of a process in the network namespace"

ROWS: list[Row] = [
    ("driver is text", manifest("driver: netns"), [f'bad.yaml:3:9: driver: "netns" is text; expected {DRIVER}']),
    ("driver is empty", manifest("driver: {}"), [f"bad.yaml:3:9: driver: an empty mapping; expected {DRIVER}"]),
    ("driver is null", manifest("driver:"), [f"bad.yaml:3:8: driver: nothing is given; expected {DRIVER}"]),
    (
        "driver unknown",
        manifest("driver: {docker: {name: web-1}}"),
        ["bad.yaml:3:10: driver.docker: unknown field; expected one of: netns, vm, libvirt, kata"],
    ),
    (
        "driver misspelt",
        manifest("driver: {nets: {name: web-1}}"),
        ['bad.yaml:3:10: driver.nets: unknown field; did you mean "netns"?'],
    ),
    (
        "two drivers",
        manifest("driver: {netns: {name: web-1}, vm: {name: web-1}}"),
        [
            f"bad.yaml:3:9: driver: a mapping with netns, vm; expected {DRIVER}",
        ],
    ),
    (
        "netns is text",
        manifest("driver: {netns: web-1}"),
        [
            (
                'bad.yaml:3:17: driver.netns: "web-1" is text; expected a network namespace of this host:'
                " one of name, path and pid, such as {name: web-1}"
            )
        ],
    ),
    (
        "netns is empty",
        manifest("driver: {netns: {}}"),
        [f"bad.yaml:3:17: driver.netns: an empty mapping; expected {NETNS}"],
    ),
    (
        "netns of name and pid",
        manifest("driver: {netns: {name: web-1, pid: 1}}"),
        [f"bad.yaml:3:17: driver.netns: a mapping with name, pid; expected {NETNS}"],
    ),
    (
        "netns of a container",
        manifest("driver: {netns: {container: web-1}}"),
        ["bad.yaml:3:18: driver.netns.container: unknown field; expected one of: name, path, pid"],
    ),
    (
        "netns name is empty",
        manifest("driver: {netns: {name: ''}}"),
        [f'bad.yaml:3:24: driver.netns.name: "" is not valid; expected {NAME}'],
    ),
    (
        "netns name with a slash",
        manifest("driver: {netns: {name: ../net}}"),
        [f'bad.yaml:3:24: driver.netns.name: "../net" is not valid; expected {NAME}'],
    ),
    (
        "netns name of two dots",
        manifest("driver: {netns: {name: ..}}"),
        [f'bad.yaml:3:24: driver.netns.name: ".." is not valid; expected {NAME}'],
    ),
    (
        "netns name below zero",
        manifest("driver: {netns: {name: -7}}"),
        ["bad.yaml:3:24: driver.netns.name: -7 is below the minimum of 0"],
    ),
    (
        "netns name of 256 characters",
        manifest(f"driver: {{netns: {{name: {'a' * 256}}}}}"),
        [
            (
                'bad.yaml:3:24: driver.netns.name: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…" (256 characters) is not '
                f"valid; expected {NAME}"
            )
        ],
    ),
    (
        "netns name is a list",
        manifest("driver: {netns: {name: [web-1]}}"),
        [f"bad.yaml:3:24: driver.netns.name: a list of 1 item; expected {NAME}"],
    ),
    (
        "path relative",
        manifest("driver: {netns: {path: run/netns/web-1}}"),
        [f'bad.yaml:3:24: driver.netns.path: "run/netns/web-1" is not valid; expected {PATH}'],
    ),
    (
        "path is empty",
        manifest("driver: {netns: {path: ''}}"),
        [f'bad.yaml:3:24: driver.netns.path: "" is not valid; expected {PATH}'],
    ),
    (
        "path is a number",
        manifest("driver: {netns: {path: 7}}"),
        [f"bad.yaml:3:24: driver.netns.path: 7 is a number; expected {PATH}"],
    ),
    (
        "path with a NUL",
        manifest('driver: {netns: {path: "/run/\\0"}}'),
        [f'bad.yaml:3:24: driver.netns.path: "/run/\\x00" is not valid; expected {PATH}'],
    ),
    (
        "path with a line end",
        manifest('driver: {netns: {path: "/run/netns/web-1\\n"}}'),
        [f'bad.yaml:3:24: driver.netns.path: "/run/netns/web-1\\n" is not valid; expected {PATH}'],
    ),
    (
        "path of 4096 characters",
        manifest(f"driver: {{netns: {{path: /{'a' * 4095}}}}}"),
        [
            (
                'bad.yaml:3:24: driver.netns.path: "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…" (4096 characters) is not '
                f"valid; expected {PATH}"
            )
        ],
    ),
    ("pid 0", manifest("driver: {netns: {pid: 0}}"), ["bad.yaml:3:23: driver.netns.pid: 0 is below the minimum of 1"]),
    (
        "pid above",
        manifest("driver: {netns: {pid: 4194305}}"),
        ["bad.yaml:3:23: driver.netns.pid: 4194305 is above the maximum of 4194304"],
    ),
    (
        "pid is text",
        manifest("driver: {netns: {pid: '1'}}"),
        [
            (
                'bad.yaml:3:23: driver.netns.pid: "1" is text; expected the ID of a process in the '
                "network namespace; write 1 without quotes"
            )
        ],
    ),
    (
        "pid is a date",
        manifest("driver: {netns: {pid: 2026-01-01}}"),
        [f'bad.yaml:3:23: driver.netns.pid: "2026-01-01" is text; expected {PID}'],
    ),
]
