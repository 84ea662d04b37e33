"""What is wrong with services that are written as rules."""

from __future__ import annotations

from tests.manifest.texts import Row, with_ipvs

RULES = "the rules in the form of ipvsadm-save, one a line"
PATH = "the path of a file of rules, relative to the manifest's folder"
NONE = "contains no rule; to have no services, write `services: []`"
NO_PORT = "no port; only a persistent service (-p) may have port 0, which means all ports"

ROWS: list[Row] = [
    (
        "services and rules",
        with_ipvs("services: []", "rules: -A -t 172.17.0.7:80"),
        ["bad.yaml:6:3: ipvs.rules: not allowed here; expected only one of services, rules and rulesFile"],
    ),
    (
        "services and a file of rules",
        with_ipvs("services: []", "rulesFile: web-1.rules"),
        [("bad.yaml:6:3: ipvs.rulesFile: not allowed here; expected only one of services, rules and rulesFile")],
    ),
    (
        "rules and a file of rules",
        with_ipvs("rules: -A -t 172.17.0.7:80", "rulesFile: web-1.rules"),
        [("bad.yaml:6:3: ipvs.rulesFile: not allowed here; expected only one of services, rules and rulesFile")],
    ),
    (
        "all three",
        with_ipvs("services: []", "rules: -A -t 172.17.0.7:80", "rulesFile: web-1.rules"),
        [
            "bad.yaml:6:3: ipvs.rules: not allowed here; expected only one of services, rules and rulesFile",
            ("bad.yaml:7:3: ipvs.rulesFile: not allowed here; expected only one of services, rules and rulesFile"),
        ],
    ),
    (
        "rules are a list",
        with_ipvs("rules: [-A -t 172.17.0.7:80]"),
        [f"bad.yaml:5:10: ipvs.rules: a list of 1 item; expected {RULES}"],
    ),
    ("rules are null", with_ipvs("rules:"), [f"bad.yaml:5:9: ipvs.rules: nothing is given; expected {RULES}"]),
    ("rules are empty", with_ipvs("rules: |"), [f"bad.yaml:5:10: ipvs.rules: {NONE}"]),
    ("rules of comments", with_ipvs("rules: |\n  # -A -t 172.17.0.7:80\n"), [f"bad.yaml:5:10: ipvs.rules: {NONE}"]),
    (
        "server without its service",
        with_ipvs(
            "rules: |\n  -A -t 10.10.11.12:80 -s rr\n  -a -t 10.10.11.12:80 -r 172.16.0.1:80 -m\n"
            "  -a -t 10.10.11.12:100 -r 172.16.0.1:80 -m"
        ),
        ["bad.yaml:8:5: ipvs.rules line 3: -a -t 10.10.11.12:100: no -A line has this service"],
    ),
    (
        "wrong lines between blank ones",
        with_ipvs("rules: |\n\n  # first\n    -A -t 10.10.11.12\n\n  -D -t 10.10.11.12:80\n  -A -t 10.10.11.13:80"),
        [
            f"bad.yaml:8:7: ipvs.rules line 3: {NO_PORT}",
            "bad.yaml:10:5: ipvs.rules line 5: only -A and -a lines belong in a rules file",
        ],
    ),
    (
        "wrong line of a text with an indent of its own",
        with_ipvs("rules: |2\n    -A -t 10.10.11.12\n    -A -t 10.10.11.13:80"),
        [f"bad.yaml:6:7: ipvs.rules line 1: {NO_PORT}"],
    ),
    (
        "wrong line of a text that keeps its end",
        with_ipvs("rules: |+ # from ipvsadm-save\n  -A -t 10.10.11.12:80\n  -A -t 10.10.11.12:80\n\n"),
        ["bad.yaml:7:5: ipvs.rules line 2: -A -t 10.10.11.12:80: an earlier line has this service already"],
    ),
    (
        "wrong line of a folded text",
        with_ipvs("rules: >\n  -A -t\n  10.10.11.12\n\n  -A -t 10.10.11.13:80"),
        [f"bad.yaml:5:10: ipvs.rules line 1: {NO_PORT}"],
    ),
    (
        "wrong line of a quoted text",
        with_ipvs('rules: "-A -t 10.10.11.12:80\\n-A -t 10.10.11.12:80"'),
        ["bad.yaml:5:10: ipvs.rules line 2: -A -t 10.10.11.12:80: an earlier line has this service already"],
    ),
    (
        "wrong line below an anchor",
        with_ipvs("rules: &rules\n  |\n  -A -t 10.10.11.12\n"),
        [f"bad.yaml:5:10: ipvs.rules line 1: {NO_PORT}"],
    ),
    (
        "wrong line with escapes",
        with_ipvs('rules: "-A -t 10.10.11.12:80\\n-A \\x1b[31m"'),
        ['bad.yaml:5:10: ipvs.rules line 2: unexpected "\\x1b[31m"'],
    ),
    (
        "excluded by its line",
        with_ipvs(
            "exclude: [10.0.0.0/8]",
            (
                "rules: |\n  -A -t 11.10.11.12:80\n\n  # -A -t 10.0.0.1:80\n  -a -t 11.10.11.12:80 -r 11.0.0.1 -m\n"
                "  ipvsadm  --add-service -t 10.10.11.12:80\n  -At 10.10.11.13:80"
            ),
        ),
        [
            "bad.yaml:11:5: ipvs.rules line 5: 10.10.11.12:80 is excluded by ipvs.exclude[0]; remove one of the two",
            "bad.yaml:12:5: ipvs.rules line 6: 10.10.11.13:80 is excluded by ipvs.exclude[0]; remove one of the two",
        ],
    ),
    (
        "engine without persistence",
        with_ipvs(
            "rules: |\n  -A -t 10.10.11.12:80\n  -A -u 10.10.11.12:5060 --pe sip\n  -A -u 10.10.11.13:5060 --pe sip -p"
        ),
        ["bad.yaml:7:5: ipvs.rules line 2: 10.10.11.12:5060 has a persistence engine but is not persistent; add -p"],
    ),
    (
        "20,001 rules in lines",
        with_ipvs("rules: |\n" + "\n".join(f"  -A -f {mark}" for mark in range(1, 20_002))),
        ["bad.yaml:5:10: ipvs.rules: 20,001 rules (20,001 services and 0 servers); at most 20,000 are allowed"],
    ),
    (
        "the last of 20,000 lines",
        with_ipvs("rules: |\n" + "\n".join(f"  -A -f {mark}" for mark in range(1, 20_000)) + "\n  -A -f 0"),
        ["bad.yaml:20005:5: ipvs.rules line 20000: -f 0: expected a number from 1 to 4294967295"],
    ),
    (
        "path of rules absolute",
        with_ipvs("rulesFile: /etc/passwd"),
        [f'bad.yaml:5:14: ipvs.rulesFile: "/etc/passwd" is not valid; expected {PATH}'],
    ),
    (
        "path of rules empty",
        with_ipvs("rulesFile: ''"),
        [f'bad.yaml:5:14: ipvs.rulesFile: "" is not valid; expected {PATH}'],
    ),
    (
        "path of rules with a line end",
        with_ipvs('rulesFile: "web-1.rules\\n"'),
        [f'bad.yaml:5:14: ipvs.rulesFile: "web-1.rules\\n" is not valid; expected {PATH}'],
    ),
    (
        "path of rules is a number",
        with_ipvs("rulesFile: 7"),
        [f"bad.yaml:5:14: ipvs.rulesFile: 7 is a number; expected {PATH}"],
    ),
    (
        "no such file of rules",
        with_ipvs("rulesFile: below/web-1.rules"),
        ["bad.yaml:5:14: ipvs.rulesFile: below/web-1.rules: No such file or directory"],
    ),
]
