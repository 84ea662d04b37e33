"""What is wrong with a rule."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest, rule, with_rule

LINK = "an interface name: 1 to 15 letters, digits, '_', '-' and '.', the first a letter"
PRIORITY = (
    "a number from 0 to 4294967295: rules are looked at in this order, and the kernel's own are 0, 32766 and 32767"
)
DECISION = "one of table, l3mdev: true, goto, action (blackhole, unreachable, prohibit)"
MARK = "the mark of packets, a number, or as text with a mask, such as 0x10/0xff"
ONE_OF_TWO = "differs only in invert or goto, and the kernel accepts only one of the two; give another priority"
RULE_FIELDS = (
    "one of: priority, family, from, to, iif, oif, fwmark, ipproto, sport, dport, uidrange, "
    "tos, invert, table, l3mdev, goto, action, suppressPrefixlength"
)

ROWS: list[Row] = [
    (
        "rule without a priority",
        with_rule("priority"),
        [f"bad.yaml:5:3: rules[0].priority: missing; expected {PRIORITY}"],
    ),
    ("rule without a decision", with_rule("table"), [f"bad.yaml:5:3: rules[0].table: missing; expected {DECISION}"]),
    (
        "priority of a rule below 0",
        with_rule("priority: -1"),
        ["bad.yaml:5:13: rules[0].priority: -1 is below the minimum of 0"],
    ),
    (
        "priority of a rule above 32 bits",
        with_rule("priority: 4294967296"),
        ["bad.yaml:5:13: rules[0].priority: 4294967296 is above the maximum of 4294967295"],
    ),
    (
        "priority of a rule is text",
        with_rule("priority: first"),
        [f'bad.yaml:5:13: rules[0].priority: "first" is text; expected {PRIORITY}'],
    ),
    (
        "family of a rule unknown",
        with_rule("family: inet"),
        ['bad.yaml:7:11: rules[0].family: "inet" is not valid; expected the address family of the rule: ipv4 or ipv6'],
    ),
    (
        "misspelt from of a rule",
        with_rule("form: 10.1.0.0/16"),
        ['bad.yaml:7:3: rules[0].form: unknown field; did you mean "from"?'],
    ),
    (
        "word of iproute2 in a rule",
        with_rule("lookup: 7", "table"),
        [f"bad.yaml:6:3: rules[0].lookup: unknown field; expected {RULE_FIELDS}"],
    ),
    (
        "host bits in from",
        with_rule("from: 10.1.0.7/16"),
        ["bad.yaml:7:9: rules[0].from: 10.1.0.7/16 has host bits set; the network is 10.1.0.0/16"],
    ),
    ("from is no address", with_rule("from: eth0"), ['bad.yaml:7:9: rules[0].from: "eth0" is not an IP address']),
    (
        "from is a number",
        with_rule("from: 10"),
        [
            (
                "bad.yaml:7:9: rules[0].from: 10 is a number; "
                "expected a network (without host bits) or an address: the source of packets"
            )
        ],
    ),
    (
        "from every address",
        with_rule("from: 0.0.0.0/0"),
        ["bad.yaml:7:9: rules[0].from: 0.0.0.0/0 is every address; leave the field out"],
    ),
    (
        "to every IPv6 address",
        with_rule("to: ::/0"),
        ["bad.yaml:7:7: rules[0].to: ::/0 is every address; leave the field out"],
    ),
    ("to default", with_rule("to: default"), ['bad.yaml:7:7: rules[0].to: "default" is not an IP address']),
    (
        "from and to of two families",
        with_rule("from: 10.1.0.0/16", "to: fd00::/8"),
        ["bad.yaml:7:9: rules[0].from: 10.1.0.0/16 is IPv4, and the rule is IPv6"],
    ),
    (
        "family other than that of from",
        with_rule("from: 10.1.0.0/16", "family: ipv6"),
        ["bad.yaml:7:9: rules[0].from: 10.1.0.0/16 is IPv4, and the rule is IPv6"],
    ),
    (
        "family other than that of to",
        with_rule("to: fd00::/8", "family: ipv4"),
        ["bad.yaml:7:7: rules[0].to: fd00::/8 is IPv6, and the rule is IPv4"],
    ),
    ("iif is no name", with_rule("iif: '0'"), [f'bad.yaml:7:8: rules[0].iif: "0" is not valid; expected {LINK}']),
    (
        "oif of 16 characters",
        with_rule("oif: a234567890123456"),
        [f'bad.yaml:7:8: rules[0].oif: "a234567890123456" is not valid; expected {LINK}'],
    ),
    ("fwmark negative", with_rule("fwmark: -1"), ["bad.yaml:7:11: rules[0].fwmark: -1 is below the minimum of 0"]),
    (
        "fwmark above 32 bits",
        with_rule("fwmark: 4294967296"),
        ["bad.yaml:7:11: rules[0].fwmark: 4294967296 is above the maximum of 4294967295"],
    ),
    (
        "fwmark above 32 bits as text",
        with_rule("fwmark: '4294967296'"),
        ["bad.yaml:7:11: rules[0].fwmark: 4294967296 has more than 32 bits"],
    ),
    (
        "mask of a fwmark above 32 bits",
        with_rule("fwmark: 1/4294967296"),
        ["bad.yaml:7:11: rules[0].fwmark: 1/4294967296 has more than 32 bits"],
    ),
    (
        "mask of a fwmark is 0",
        with_rule("fwmark: 0/0"),
        ["bad.yaml:7:11: rules[0].fwmark: a mask of 0 compares nothing; leave the field out"],
    ),
    (
        "fwmark outside its mask",
        with_rule("fwmark: 0x100/0xff"),
        [
            (
                "bad.yaml:7:11: rules[0].fwmark: 0x100/0xff has bits outside its mask, which the kernel ignores; "
                "the same is 0x0/0xff"
            )
        ],
    ),
    (
        "fwmark octal",
        with_rule("fwmark: '010'"),
        [f'bad.yaml:7:11: rules[0].fwmark: "010" is not valid; expected {MARK}'],
    ),
    (
        "fwmark is a list",
        with_rule("fwmark: [1]"),
        [f"bad.yaml:7:11: rules[0].fwmark: a list of 1 item; expected {MARK}"],
    ),
    (
        "ipproto unknown",
        with_rule("ipproto: ospf"),
        [
            (
                'bad.yaml:7:12: rules[0].ipproto: "ospf" is not valid; '
                "expected the IP protocol of packets: tcp, udp, sctp, icmp, ipv6-icmp, gre, esp, ah, or a number from "
                "1 to 255"
            )
        ],
    ),
    ("ipproto 0", with_rule("ipproto: 0"), ["bad.yaml:7:12: rules[0].ipproto: 0 is below the minimum of 1"]),
    ("ipproto 256", with_rule("ipproto: 256"), ["bad.yaml:7:12: rules[0].ipproto: 256 is above the maximum of 255"]),
    ("sport 0", with_rule("sport: 0"), ["bad.yaml:7:10: rules[0].sport: 0 is below the minimum of 1"]),
    ("sport above", with_rule("sport: 65536"), ["bad.yaml:7:10: rules[0].sport: 65536 is above the maximum of 65535"]),
    ("sport range above", with_rule("sport: 1-65536"), ["bad.yaml:7:10: rules[0].sport: 1-65536 is above 65535"]),
    ("dport backwards", with_rule("dport: 80-79"), ["bad.yaml:7:10: rules[0].dport: 80-79 ends before it begins"]),
    (
        "dport name",
        with_rule("dport: http"),
        [
            (
                'bad.yaml:7:10: rules[0].dport: "http" is not valid; '
                "expected the destination port of packets: a number from 1 to 65535, or a range such as 8000-8080"
            )
        ],
    ),
    (
        "uidrange above",
        with_rule("uidrange: 4294967295"),
        ["bad.yaml:7:13: rules[0].uidrange: 4294967295 is above the maximum of 4294967294"],
    ),
    (
        "uidrange range above",
        with_rule("uidrange: 0-4294967295"),
        ["bad.yaml:7:13: rules[0].uidrange: 0-4294967295 is above 4294967294"],
    ),
    ("uidrange backwards", with_rule("uidrange: 2-1"), ["bad.yaml:7:13: rules[0].uidrange: 2-1 ends before it begins"]),
    (
        "uidrange name",
        with_rule("uidrange: root"),
        [
            (
                'bad.yaml:7:13: rules[0].uidrange: "root" is not valid; '
                "expected the IDs of users whose packets are meant: a number, or a range such as 1000-1999"
            )
        ],
    ),
    (
        "tos no multiple",
        with_rule("tos: 3"),
        [
            (
                "bad.yaml:7:8: rules[0].tos: 3 is not valid; "
                "expected the type of service of packets: a multiple of 4 from 0 (any) to 252"
            )
        ],
    ),
    ("tos above 252", with_rule("tos: 256"), ["bad.yaml:7:8: rules[0].tos: 256 is above the maximum of 252"]),
    (
        "invert text",
        with_rule("invert: yes"),
        ['bad.yaml:7:11: rules[0].invert: "yes" is text; expected true: packets that the selectors do not select'],
    ),
    ("table 0 of a rule", with_rule("table: 0"), ["bad.yaml:6:10: rules[0].table: 0 is below the minimum of 1"]),
    (
        "table of a rule above 32 bits",
        with_rule("table: 4294967296"),
        ["bad.yaml:6:10: rules[0].table: 4294967296 is above the maximum of 4294967295"],
    ),
    (
        "table of a rule by name",
        with_rule("table: main"),
        [
            (
                'bad.yaml:6:10: rules[0].table: "main" is text; '
                "expected a number from 1 to 4294967295: the routing table that is looked up"
            )
        ],
    ),
    (
        "goto back",
        with_rule("table", "goto: 99"),
        ["bad.yaml:6:9: rules[0].goto: 99 is not above the rule's own priority, 100: the kernel only goes forward"],
    ),
    (
        "goto itself",
        with_rule("table", "goto: 100"),
        ["bad.yaml:6:9: rules[0].goto: 100 is not above the rule's own priority, 100: the kernel only goes forward"],
    ),
    ("goto 0", with_rule("table", "goto: 0"), ["bad.yaml:6:9: rules[0].goto: 0 is below the minimum of 1"]),
    (
        "goto above",
        with_rule("table", "goto: 4294967296"),
        ["bad.yaml:6:9: rules[0].goto: 4294967296 is above the maximum of 4294967295"],
    ),
    (
        "table and goto of a rule",
        with_rule("goto: 200"),
        ["bad.yaml:7:3: rules[0].goto: table and goto exclude each other"],
    ),
    (
        "table and action",
        with_rule("action: prohibit"),
        ["bad.yaml:7:3: rules[0].action: table and action exclude each other"],
    ),
    (
        "table and l3mdev",
        with_rule("l3mdev: true"),
        ["bad.yaml:7:3: rules[0].l3mdev: table and l3mdev exclude each other"],
    ),
    (
        "all four",
        with_rule("l3mdev: true", "goto: 200", "action: blackhole"),
        [
            "bad.yaml:7:3: rules[0].l3mdev: table and l3mdev exclude each other",
            "bad.yaml:8:3: rules[0].goto: table and goto exclude each other",
            "bad.yaml:9:3: rules[0].action: table and action exclude each other",
        ],
    ),
    (
        "action unknown",
        with_rule("table", "action: drop"),
        [
            (
                'bad.yaml:6:11: rules[0].action: "drop" is not valid; '
                "expected what becomes of packets instead: blackhole, unreachable or prohibit"
            )
        ],
    ),
    (
        "l3mdev false alone",
        with_rule("table", "l3mdev: false"),
        [f"bad.yaml:5:3: rules[0].table: missing; expected {DECISION}"],
    ),
    (
        "suppressPrefixlength with an action",
        with_rule("table", "action: prohibit", "suppressPrefixlength: 0"),
        ["bad.yaml:7:25: rules[0].suppressPrefixlength: is about routes of a table, and action has none"],
    ),
    (
        "suppressPrefixlength with goto",
        with_rule("table", "goto: 200", "suppressPrefixlength: 0"),
        ["bad.yaml:7:25: rules[0].suppressPrefixlength: is about routes of a table, and goto has none"],
    ),
    (
        "suppressPrefixlength above 32",
        with_rule("suppressPrefixlength: 33"),
        ["bad.yaml:7:25: rules[0].suppressPrefixlength: a prefix of this rule has at most 32 bits"],
    ),
    (
        "suppressPrefixlength above 128",
        with_rule("family: ipv6", "suppressPrefixlength: 129"),
        ["bad.yaml:8:25: rules[0].suppressPrefixlength: 129 is above the maximum of 128"],
    ),
    (
        "suppressPrefixlength below 0",
        with_rule("suppressPrefixlength: -1"),
        ["bad.yaml:7:25: rules[0].suppressPrefixlength: -1 is below the minimum of 0"],
    ),
    ("rule twice", manifest(rules=[rule(), rule()]), ["bad.yaml:7:3: rules[1]: rules[0] is the same rule already"]),
    (
        "rule twice spelt otherwise",
        manifest(rules=[rule("fwmark: 16"), rule("fwmark: 0x10", "family: ipv4")]),
        ["bad.yaml:8:3: rules[1]: rules[0] is the same rule already"],
    ),
    (
        "rule and its inverse",
        manifest(rules=[rule("from: 10.1.0.0/16"), rule("from: 10.1.0.0/16", "invert: true")]),
        [f"bad.yaml:8:3: rules[1]: rules[0] {ONE_OF_TWO}"],
    ),
    (
        "rule of two targets",
        manifest(rules=[rule("table", "goto: 200"), rule("table", "goto: 300")]),
        [f"bad.yaml:7:3: rules[1]: rules[0] {ONE_OF_TWO}"],
    ),
    (
        "rule thrice",
        manifest(rules=[rule(), rule(), rule()]),
        [
            "bad.yaml:7:3: rules[1]: rules[0] is the same rule already",
            "bad.yaml:9:3: rules[2]: rules[0] is the same rule already",
        ],
    ),
    (
        "rules are text",
        manifest("rules: none"),
        ['bad.yaml:4:8: rules: "none" is text; expected a list of the policy routing rules of the sandbox'],
    ),
    (
        "rule is text",
        manifest("rules: [all]"),
        [
            (
                'bad.yaml:4:9: rules[0]: "all" is text; '
                "expected a rule: a mapping with priority, and one of table, l3mdev, goto and action"
            )
        ],
    ),
]
