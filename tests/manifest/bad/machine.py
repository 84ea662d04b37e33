"""What is wrong with the address of a virtual machine."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest, nic

OURS = "one that `reconciler sandbox start` started"
VM = f"a virtual machine: either name ({OURS}), or agent alone, or qmp with agent, guestAgent or both"
NAME = (
    "the name of a virtual machine that `reconciler sandbox start` started: 1 to 50 letters, digits, '_', '-' and "
    "'.', the first a letter or digit"
)
QMP = "the absolute path of QEMU's QMP socket: at most 107 printable ASCII characters"
AGENT = (
    "how the host reaches the agent in the machine: the absolute path of a socket (at most 107 printable ASCII "
    "characters), vsock://CID:PORT, or hvsock:///PATH:PORT for the socket of hybrid vsock"
)

ROWS: list[Row] = [
    (
        "vm is text",
        manifest("driver: {vm: web-1}"),
        [
            (
                'bad.yaml:3:14: driver.vm: "web-1" is text; expected a virtual machine: either name (one '
                "that `reconciler sandbox start` started), or agent alone, or qmp with agent, guestAgent or both, such "
                "as {name: web-1}"
            )
        ],
    ),
    (
        "vm is empty",
        manifest("driver: {vm: {}}"),
        [f"bad.yaml:3:14: driver.vm: an empty mapping is not valid; expected {VM}"],
    ),
    (
        "vm name is empty",
        manifest("driver: {vm: {name: ''}}"),
        [f'bad.yaml:3:21: driver.vm.name: "" is not valid; expected {NAME}'],
    ),
    (
        "vm name with a slash",
        manifest("driver: {vm: {name: ../web-1}}"),
        [f'bad.yaml:3:21: driver.vm.name: "../web-1" is not valid; expected {NAME}'],
    ),
    (
        "vm name begins with a hyphen",
        manifest("driver: {vm: {name: -web-1}}"),
        [f'bad.yaml:3:21: driver.vm.name: "-web-1" is not valid; expected {NAME}'],
    ),
    (
        "vm name below zero",
        manifest("driver: {vm: {name: -1}}"),
        ["bad.yaml:3:21: driver.vm.name: -1 is below the minimum of 0"],
    ),
    (
        "vm name with a line end",
        manifest('driver: {vm: {name: "web-1\\n"}}'),
        [f'bad.yaml:3:21: driver.vm.name: "web-1\\n" is not valid; expected {NAME}'],
    ),
    (
        "vm name of 51 characters",
        manifest(f"driver: {{vm: {{name: {'a' * 51}}}}}"),
        [
            (
                'bad.yaml:3:21: driver.vm.name: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…" (51 characters) is not '
                f"valid; expected {NAME}"
            )
        ],
    ),
    (
        "vm of qmp alone",
        manifest("driver: {vm: {qmp: /run/q.sock}}"),
        [f"bad.yaml:3:14: driver.vm: a mapping with qmp is not valid; expected {VM}"],
    ),
    (
        "vm of agent alone, into which a NIC should be plugged",
        manifest("driver: {vm: {agent: /run/a.sock}}", nics=[nic()]),
        [
            (
                "bad.yaml:4:1: interfaces: the machine has no monitor, so no NIC can be plugged into it; add qmp to "
                "the driver, or remove the interfaces: routes, rules, neighbours and IPVS can name NICs that the "
                "machine has"
            )
        ],
    ),
    *(
        (
            f"vm by {address}",
            manifest(f"driver: {{vm: {{agent: '{address}'}}}}"),
            [f'bad.yaml:3:22: driver.vm.agent: "{address}" is not valid; expected {AGENT}'],
        )
        for address in (
            "vsock://0:200",
            "vsock://03:200",
            "vsock://3:0",
            "vsock://3",
            "vsock://3:200 ",
            "vsock://4294967295:200",
            "vsock://3:4294967295",
            "VSOCK://3:200",
            "vsock:3:200",
            "hvsock://run/a.sock:200",
            "hvsock:///:200",
            "hvsock:///run/a.sock",
            "hvsock:///run/a.sock:-1",
            "unix:///run/a.sock",
        )
    ),
    (
        "vm by vsock, into which an agent should be pushed",
        manifest("driver: {vm: {qmp: /run/q.sock, agent: 'vsock://3:200', guestAgent: /run/ga.sock}}"),
        [
            (
                "bad.yaml:3:57: driver.vm.guestAgent: an agent that is pushed serves a virtio-serial port, no vsock; "
                "remove guestAgent, or give the path of that port's socket as agent"
            )
        ],
    ),
    (
        "vm of agent and guest agent",
        manifest("driver: {vm: {agent: /run/a.sock, guestAgent: /run/ga.sock}}"),
        [f"bad.yaml:3:14: driver.vm: a mapping with agent, guestAgent is not valid; expected {VM}"],
    ),
    (
        "vm of name and sockets",
        manifest("driver: {vm: {name: web-1, qmp: /run/q.sock, agent: /run/a.sock}}"),
        [f"bad.yaml:3:14: driver.vm: a mapping with name, qmp, agent is not valid; expected {VM}"],
    ),
    (
        "vm of name and agent",
        manifest("driver: {vm: {name: web-1, agent: /run/a.sock}}"),
        [f"bad.yaml:3:14: driver.vm: a mapping with name, agent is not valid; expected {VM}"],
    ),
    (
        "vm unknown field",
        manifest("driver: {vm: {nam: web-1}}"),
        ['bad.yaml:3:15: driver.vm.nam: unknown field; did you mean "name"?'],
    ),
    (
        "vm unknown field beside a name",
        manifest("driver: {vm: {name: web-1, pid: 7}}"),
        [
            f"bad.yaml:3:14: driver.vm: a mapping with name, pid is not valid; expected {VM}",
            "bad.yaml:3:28: driver.vm.pid: unknown field; expected one of: name, qmp, agent, guestAgent",
        ],
    ),
    (
        "vm sockets relative",
        manifest("driver: {vm: {qmp: run/q.sock, agent: /}}"),
        [
            f'bad.yaml:3:20: driver.vm.qmp: "run/q.sock" is not valid; expected {QMP}',
            f'bad.yaml:3:39: driver.vm.agent: "/" is not valid; expected {AGENT}',
        ],
    ),
    (
        "vm socket of 108 characters",
        manifest(f"driver: {{vm: {{qmp: /{'a' * 107}, agent: /run/a.sock}}}}"),
        [
            (
                'bad.yaml:3:20: driver.vm.qmp: "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…" (108 characters) is not '
                f"valid; expected {QMP}"
            )
        ],
    ),
    (
        "vm socket of another alphabet",
        manifest("driver: {vm: {qmp: /run/q.sock, agent: /run/ä.sock}}"),
        [f'bad.yaml:3:40: driver.vm.agent: "/run/ä.sock" is not valid; expected {AGENT}'],
    ),
    (
        "vm socket with a line end",
        manifest('driver: {vm: {qmp: /run/q.sock, agent: "/run/a.sock\\n"}}'),
        [f'bad.yaml:3:40: driver.vm.agent: "/run/a.sock\\n" is not valid; expected {AGENT}'],
    ),
    (
        "netns misspelt",
        manifest("driver: {vm: {name: web-1}, nets: {}}"),
        [
            (
                "bad.yaml:3:9: driver: a mapping with vm, nets; "
                "expected one driver and its address, such as {netns: {name: web-1}}"
            ),
            'bad.yaml:3:29: driver.nets: unknown field; did you mean "netns"?',
        ],
    ),
]
