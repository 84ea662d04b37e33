"""Mistakes of YAML: indentation, tabs, brackets, quotes, colons, encodings."""

from __future__ import annotations

from tests.mistakes.manifest import Row

ROWS: list[Row] = [
    Row(
        "tab in the indentation",
        "excellent",
        "    mtu: 1500",
        "\tmtu: 1500",
        "9:1: a tab in the indentation; YAML allows only spaces there",
    ),
    Row(
        "one space too few",
        "good",
        "    mtu: 1500",
        "   mtu: 1500",
        ("9:4: this begins in column 4, and nothing that it could belong to begins there; check the indentation"),
    ),
    Row(
        "one space too many",
        "good",
        "    mtu: 1500",
        "     mtu: 1500",
        ("9:9: this is indented below a value that is complete already; begin it in the column of the field above it"),
    ),
    Row(
        "items in different columns",
        "good",
        "  - {dest: default",
        "- {dest: default",
        "13:3: a list cannot go on among fields: the `-` of all of its items stand in one column",
    ),
    Row("no space after a colon", "excellent", "mtu: 1500", "mtu:1500", '9:5: a space is missing after "mtu:"'),
    Row(
        "no colon after a section",
        "excellent",
        "interfaces:",
        "interfaces",
        '5:1: a colon is missing after "interfaces"',
    ),
    Row(
        "no dash before an item",
        "good",
        "  - name: eth0",
        "    name: eth0",
        (
            "6:5: interfaces: a mapping with name, device, hwAddr, mtu, addresses; expected a list of"
            " the network interfaces of the sandbox"
        ),
    ),
    Row(
        "brace left open",
        "excellent",
        "192.0.2.1, device: eth0}",
        "192.0.2.1, device: eth0",
        "13:5: a `,` or `}` is missing before this, in the mapping that begins with `{` in line 12",
    ),
    Row(
        "bracket left open",
        "excellent",
        '"2001:db8::10/64"]',
        '"2001:db8::10/64"',
        "11:1: a `,` or `]` is missing before this, in the list that begins with `[` in line 10",
    ),
    Row(
        "quote left open",
        "excellent",
        '"2001:db8::10/64"]',
        '"2001:db8::10/64]',
        "10:32: the quotes that begin here do not end",
    ),
    Row(
        "comma forgotten",
        "excellent",
        "{dest: default, gateway",
        "{dest: default gateway",
        "12:27: a `,` or `}` is missing before this, in the mapping that begins with `{` in line 12",
    ),
    Row(
        "equals sign for a colon",
        "excellent",
        "mtu: 1500",
        "mtu = 1500",
        "9:5: a colon is missing; a field is written `name: value`, or `name:` above what belongs to it",
    ),
    Row(
        "two fields on a line",
        "good",
        "sandbox: web-1",
        "sandbox: web-1 driver: x",
        ("2:22: a second `: ` in a line; give each field a line of its own, and put a text with `: ` in it in quotes"),
    ),
    Row(
        "address that ends with a colon",
        "excellent",
        '"2001:db8::10/64"',
        "2001:db8::",
        '10:32: 2001:db8:: begins or ends with a colon, so YAML needs quotes around it: "2001:db8::"',
    ),
    Row(
        "typographic quotes",
        "excellent",
        '"2001:db8::10/64"',
        "“2001:db8::10/64”",
        ('10:32: interfaces[0].addresses[1]: "“2001:db8::10" is not an IP address; it has typographic quotes'),
    ),
    Row(
        "template that was not filled in",
        "excellent",
        "sandbox: web-1",
        "sandbox: {{ name }}",
        (
            "2:11: a key must be plain text, not a list, a mapping or an alias; a `{{ … }}` of a "
            "template must be filled in first"
        ),
    ),
    Row(
        "conflict of git",
        "excellent",
        "routes:",
        "<<<<<<< HEAD\nroutes:",
        "11:1: a conflict that git marked here is not resolved",
    ),
    Row(
        "character that begins no text",
        "good",
        "sandbox: web-1",
        "sandbox: @web",
        "2:10: a text that begins with this character needs quotes",
    ),
    Row(
        "text that begins with a star",
        "good",
        "sandbox: web-1",
        "sandbox: * web",
        "2:10: a text that begins with this character needs quotes",
    ),
    Row(
        "text that begins with a percent sign",
        "good",
        "sandbox: web-1",
        "sandbox: %web",
        "2:10: a text that begins with this character needs quotes",
    ),
    Row(
        "text in the line of its bar",
        "excellent",
        "routes:",
        "paused: | for a test\nroutes:",
        "11:11: the text that `|` or `>` begins follows in the next line",
    ),
    Row(
        "text behind a quoted value",
        "good",
        "sandbox: web-1",
        'sandbox: "web" 1',
        "2:16: nothing can follow here: the value before this is complete",
    ),
    Row("field twice", "good", "    mtu: 1500\n", "    mtu: 1500\n    mtu: 1400\n", '10:5: duplicate key "mtu"'),
    Row("section twice", "good", "routes:", "interfaces: []\nroutes:", '11:1: duplicate key "interfaces"'),
    Row("YAML tag", "good", "sandbox: web-1", "sandbox: !name web-1", "2:10: tags are not supported (!name)"),
    Row(
        "section without content",
        "good",
        "routes:\n",
        "rules:\nroutes:\n",
        (
            "11:7: rules: nothing is given; expected a list of the policy routing rules of the "
            "sandbox, such as [{priority: 100, from: 10.1.0.0/16, table: 100}]"
        ),
    ),
]
