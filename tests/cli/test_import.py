"""What other tools have becomes one valid manifest; what is left out is told; what is wrong is refused whole."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.cli.main import _module, main
from reconciler.formats.ipvsadm.write import save_rules
from reconciler.formats.kata.interface import write_interface
from reconciler.formats.kata.route import write_route
from reconciler.manifest.load import load
from reconciler.manifest.notation import recognise
from reconciler.model.ipvs import Service
from reconciler.model.sandbox import NetnsAddress, Sandbox, VmAddress
from tests.examples import examples
from tests.formats.strategies import services

NIC: dict[str, Any] = {
    "device": "tap-test",
    "name": "eth-test",
    "IPAddresses": [{"address": "172.16.0.3", "mask": "16"}],
    "hwAddr": "02:42:20:6f:a3:69",
    "mtu": 1500,
}
OTHER_NIC = {"device": "tap1", "name": "eth1", "hwAddr": "02:42:20:6f:a3:6a", "mtu": 1500}
ROUTES = [
    {"dest": "default", "gateway": "172.16.0.1", "device": "eth-test"},
    {"dest": "172.17.10.10/24", "gateway": "", "device": "eth-test"},
    {"dest": "10.0.0.9", "device": "lo"},
]
RULES = """\
# ipvsadm -Sn
-A -t 10.10.11.12:100 -s rr -p 3000
-a -t 10.10.11.12:100 -r 172.16.0.1:80 -m
-a -t 10.10.11.12:100 -r 172.16.0.1:81 -m -w 1
"""
KEEPALIVED = """\
global_defs {
    router_id LB1
}
virtual_server 10.10.11.13 80 {
    delay_loop 6
    lb_algo wlc
    protocol TCP
    real_server 172.16.0.2 80 {
        weight 100
        TCP_CHECK {
            connect_timeout 3
        }
    }
}
"""
HEAD = """\
apiVersion: reconciler/v1
sandbox: web-1
driver:
  netns: {name: web-1}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str, driver: str = "--netns") -> tuple[int, str, str]:
    """Return the exit code, stdout and stderr."""
    code = main(["import", "--sandbox", "web-1", driver, "web-1", *words])
    out, err = capsys.readouterr()
    return code, out, err


def write(**files: Any) -> None:
    for name, content in files.items():
        Path(name).write_text(content if isinstance(content, str) else json.dumps(content))


def valid(text: str) -> Sandbox:
    Path("manifest.yaml").write_text(text)
    (manifest,) = load(["manifest.yaml"])
    return manifest.sandbox


def test_a_command_may_have_a_name_that_no_module_has() -> None:
    assert [_module(name) for name in ("import", "kata-network", "show")] == [
        "reconciler.cli.import_",
        "reconciler.cli.kata_network",
        "reconciler.cli.show",
    ]


def test_all_notations_in_one_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    write(nic=NIC, routes=ROUTES, rules=RULES, keepalived=KEEPALIVED)
    code, out, err = run(capsys, "keepalived", "nic", "routes", "rules")
    assert (
        out
        == HEAD
        + """\
interfaces:
- name: eth-test
  device: tap-test
  hwAddr: 02:42:20:6f:a3:69
  mtu: 1500
  addresses: [172.16.0.3/16]
routes:
- {dest: default, gateway: 172.16.0.1, device: eth-test}
- {dest: 172.17.10.0/24, device: eth-test}
- {dest: 10.0.0.9/32, device: lo}
ipvs:
  services:
  - tcp: 10.10.11.13:80
    servers:
    - {address: '172.16.0.2:80', weight: 100}
  - tcp: 10.10.11.12:100
    scheduler: rr
    persistent: 3000
    servers:
    - {address: '172.16.0.1:80'}
    - {address: '172.16.0.1:81'}
"""
    )
    assert (
        err
        == """\
keepalived:1: global_defs: not imported
keepalived:5: delay_loop 6: not imported
keepalived:10: TCP_CHECK: not imported
routes:1: dest 172.17.10.10/24: imported as 172.17.10.0/24, without the host bits
"""
    )
    assert code == 0
    assert valid(out).id == "web-1"


def test_sections_of_what_is_not_there_are_absent(capsys: pytest.CaptureFixture[str]) -> None:
    write(rules=RULES)
    _, out, _ = run(capsys, "rules")
    assert (valid(out).interfaces, valid(out).routes) == (None, None)
    write(routes=ROUTES)
    _, out, _ = run(capsys, "routes")
    assert (valid(out).interfaces, valid(out).ipvs) == (None, None)


def test_a_virtual_machine_and_its_vhost_user_nic(capsys: pytest.CaptureFixture[str]) -> None:
    write(nic=NIC | {"vhostUserSocket": "/run/vhost-user1", "queues": 5})
    code, out, _ = run(capsys, "nic", driver="--vm")
    assert (code, valid(out).driver) == (0, VmAddress(name="web-1"))
    code, out, err = run(capsys, "nic")
    assert (code, out) == (2, "")
    assert err.startswith("nic:1:1: vhostUserSocket: a network namespace has no vhost-user NICs")


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(RULES.replace("\n", "\r\n").encode())))
    code, out, err = run(capsys, "-")
    assert (code, len(out.splitlines()), err) == (0, 12, "")


def test_json_as_editors_and_programs_write_it(capsys: pytest.CaptureFixture[str]) -> None:
    write(nic=NIC)
    expected = run(capsys, "nic")
    for text in (
        json.dumps(NIC, indent="\t"),
        json.dumps(NIC, separators=(",", ":")),
        "\r\n\t" + json.dumps([NIC], indent=4),
    ):
        write(nic=text.replace("/", "\\/"))
        assert run(capsys, "nic") == expected


def test_a_pipe_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.write(writing, RULES.encode())
    os.close(writing)
    code, _, err = run(capsys, f"/dev/fd/{reading}")
    os.close(reading)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("text", "notation"),
    [
        ("\n \t[{\n", "kata"),
        ("\n# rules\n\n  ipvsadm -A -t 10.0.0.1:80", "ipvsadm"),
        ("--add-service -t 10.0.0.1:80", "ipvsadm"),
        ("! lb\n\n$A=1\nvirtual_server $A", "keepalived"),
        ("\tvrrp_instance A{", "keepalived"),
    ],
)
def test_a_notation_is_told_by_its_beginning(text: str, notation: str) -> None:
    assert recognise(text) == notation


@pytest.mark.parametrize("text", [" ", "#", "# #\n", " \t\n", "\n", "a", "a#"])
def test_the_notation_of_a_hostile_text_is_soon_told(text: str) -> None:
    """What is not linear takes minutes for a megabyte."""
    start = time.process_time()
    with contextlib.suppress(ValueError):
        recognise(text * (1 << 20) + "\0")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n! more", "is empty"),
        (
            "apiVersion: reconciler/v1",
            "is in no known notation (kata, ipvsadm, keepalived, ip, netplan, networkd, nmstate)",
        ),
        ("*filter\n-A INPUT", "is in no known notation (kata, ipvsadm, keepalived, ip, netplan, networkd, nmstate)"),
        ("null", "contains no interface and no route"),
        ("[]", "contains no interface and no route"),
        ("\0", "is in no known notation (kata, ipvsadm, keepalived, ip, netplan, networkd, nmstate)"),
    ],
)
def test_a_file_with_nothing_in_it(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(file=text)
    assert run(capsys, "file") == (2, "", f"file: {message}\n1 problem in 1 file.\n")


def test_the_notation_may_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    write(file="virtual_server 10.0.0.1 80 {\n}")
    code, out, err = run(capsys, "--from", "ipvsadm", "file")
    assert (code, out) == (2, "")
    assert err.startswith("file:1:1: only -A and -a lines belong in a rules file\n")
    write(file="# none\n")
    assert run(capsys, "--from", "ipvsadm", "file") == (2, "", "file: contains no rule\n1 problem in 1 file.\n")


def test_files_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "latin").write_bytes(b"\xe4")
    (folder / "below").mkdir()
    code, out, err = run(capsys, "nothing", "latin", "below")
    assert (code, out) == (2, "")
    assert (
        err
        == """\
nothing: No such file or directory
latin: not UTF-8 (byte 0); save it as UTF-8
below: is a folder, not a regular file
3 problems in 3 files.
"""
    )


def test_bad_json_is_told_with_its_field(capsys: pytest.CaptureFixture[str]) -> None:
    Path("nics").write_text(json.dumps([NIC, OTHER_NIC | {"mtu": 9601}, {"mac": "x"}, 5], indent=1))
    Path("route").write_text('{"dest": "10.0.0.0/8"}')
    Path("broken").write_text('[{"dest": }')
    code, out, err = run(capsys, "nics", "route", "broken")
    assert (code, out) == (2, "")
    assert [line for line in err.splitlines() if line.startswith(("nics", "route", "broken"))] == [
        "nics:18:10: [1].mtu: 9601: expected a number from 46 to 9600",
        "nics:20:2: [2].device: missing; list-ifaces does not print the device of the host, so add it",
        "nics:23:2: [3]: expected an object",
        "route:1:1: device: missing",
        "broken:1:1: a `,` or `]` is missing before the end, in the list that begins with `[` in line 1",
    ]


def test_bad_rules_and_virtual_servers_are_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    write(rules=RULES + "-D -t 10.10.11.12:100", lb=KEEPALIVED.replace("wlc", "wlx"))
    assert run(capsys, "rules", "lb") == (
        2,
        "",
        """\
lb:1: global_defs: not imported
lb:5: delay_loop 6: not imported
lb:10: TCP_CHECK: not imported
rules:5:1: only -A and -a lines belong in a rules file
    5 | -D -t 10.10.11.12:100
      | ^^^^^^^^^^^^^^^^^^^^^
lb:6:5: lb_algo wlx: unknown; did you mean "wlc"?
    6 |     lb_algo wlx
      |     ^^^^^^^^^^^
2 problems in 2 files.
""",
    )


def problems(err: str) -> list[str]:
    return [line for line in err.splitlines() if re.match(r"\S+:[0-9]+:[0-9]+: ", line)]


def test_what_is_there_twice_is_told_with_both_places(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        lb=KEEPALIVED.replace("10.10.11.13 80", "10.10.11.12 100"),
        rules=RULES,
        nics=[NIC, OTHER_NIC | {"device": "tap-test"}],
        routes=[ROUTES[0], {"dest": "0.0.0.0/0", "gateway": "172.16.0.2", "device": "eth-test"}],
    )
    code, out, err = run(capsys, "lb", "rules", "nics", "routes")
    assert (code, out) == (2, "")
    assert problems(err) == [
        "rules:2:1: tcp 10.10.11.12 port 100 is already defined at lb:4",
        "nics:1:1: device tap-test is already defined at nics:1",
        "routes:1:1: route to 0.0.0.0/0 is already defined at routes:1",
    ]


def test_virtual_servers_on_one_line_are_two(capsys: pytest.CaptureFixture[str]) -> None:
    text = "virtual_server 10.0.0.1 80 { protocol TCP\nreal_server 10.9.9.9 80 {} }"
    write(lb=f"{text} {text}")
    code, _, err = run(capsys, "lb")
    assert (code, problems(err)) == (2, ["lb:2:1: tcp 10.0.0.1 port 80 is already defined at lb:1"])


def test_a_file_that_is_named_twice_is_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    write(rules=RULES)
    assert run(capsys, "rules", "rules")[0] == 0


def test_what_a_manifest_must_not_have_is_told_where_it_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        nic=NIC | {"IPAddresses": [{"address": "172.16.0.0", "mask": "16"}]},
        routes=[
            {"dest": "default", "gateway": "10.0.0.1", "device": "eth-test"},
            {"dest": "10.1.0.0/16", "device": "eth9"},
        ],
        rules="-A -t 10.0.0.1:80 --pe sip\n",
    )  # fmt: skip
    code, out, err = run(capsys, "nic", "routes", "rules")
    assert (code, out) == (2, "")
    assert problems(err) == [
        "nic:1:1: addresses[0]: 172.16.0.0/16 is the address of the network itself; a host needs one within it",
        'routes:1:1: device: no interface is named "eth9"; expected one of: eth-test',
        "rules:1:1: persistenceEngine: needs persistent beside it",
    ]


def test_too_many_rules(capsys: pytest.CaptureFixture[str]) -> None:
    rule = "-A -t 10.0.{0}.{1}:80\n-a -t 10.0.{0}.{1}:80 -r 10.9.9.9 -m\n"
    write(a="".join(rule.format(n >> 8, n & 255) for n in range(10_000)), b="-A -t 10.1.0.1:80\n")
    code, out, err = run(capsys, "a", "b")
    assert (code, out) == (2, "")
    assert problems(err) == [
        "b:1:1: services: 20,001 rules (10,001 services and 10,000 servers); at most 20,000 are allowed"
    ]


def test_includes_are_relative_to_the_file_that_has_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sites = folder / "etc" / "sites"
    (sites / "folder.conf").mkdir(parents=True)
    (folder / "etc" / "main").write_text("include sites/*.conf\ninclude none\n")
    (sites / "b.conf").write_text(KEEPALIVED.replace("10.10.11.13", "10.10.11.14") + "include ../checks\n")
    (sites / "a.conf").write_text(KEEPALIVED)
    (folder / "etc" / "checks").write_text("SSL {\n}\n")
    code, out, err = run(capsys, "etc/main")
    found = valid(out).ipvs
    assert code == 0
    assert found is not None
    assert [service.address for service in found.services or ()] == ["10.10.11.13", "10.10.11.14"]
    assert (
        err
        == """\
etc/main:2: include none: not imported because it finds no such file
etc/sites/a.conf:1: global_defs: not imported
etc/sites/a.conf:5: delay_loop 6: not imported
etc/sites/a.conf:10: TCP_CHECK: not imported
etc/sites/b.conf:1: global_defs: not imported
etc/sites/b.conf:5: delay_loop 6: not imported
etc/sites/b.conf:10: TCP_CHECK: not imported
etc/sites/../checks:1: SSL: not imported
"""
    )


def test_a_file_without_a_virtual_server_is_told_with_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    write(file="vrrp_instance A {\n}")
    told = "file:1: vrrp_instance A: not imported\nfile: contains no virtual server\n1 problem in 1 file.\n"
    assert run(capsys, "file") == (2, "", told)


CONDITIONAL = """\
global_defs {
@lb1 router_id main
lvs_timeouts tcp 7200 tcpfin 30 udp 60
}
virtual_server 198.51.100.8 80 {
    protocol TCP
@lb1 lb_kind NAT
@lb2 lb_kind DR
    real_server 192.0.2.1 80 {
    }
@lb2 real_server 192.0.2.2 80 {
@lb2   weight 5
@lb2 }
}
"""


def test_lines_of_some_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    write(lb=CONDITIONAL)
    note = "lb:1: global_defs: not imported except for lvs_timeouts\n"
    whole = (
        "lb:5: virtual_server 198.51.100.8 80: not imported because it depends on the configuration ID; "
        "choose one by --config-id: lb1, lb2\n"
    )
    assert run(capsys, "lb") == (2, "", f"{note}{whole}lb: contains no virtual server\n1 problem in 1 file.\n")
    assert run(capsys, "--config-id", "lb2", "lb") == (
        0,
        HEAD
        + """\
ipvs:
  timeouts: {tcp: 7200, tcpfin: 30, udp: 60}
  services:
  - tcp: 198.51.100.8:80
    servers:
    - {address: '192.0.2.1:80', forward: dr}
    - {address: '192.0.2.2:80', weight: 5, forward: dr}
""",
        note,
    )


def test_timeouts_of_two_files(capsys: pytest.CaptureFixture[str]) -> None:
    write(a=CONDITIONAL, b=CONDITIONAL.replace("198.51.100.8", "198.51.100.9"))
    code, _, err = run(capsys, "--config-id", "lb1", "a", "b")
    assert (code, problems(err)) == (2, ["b:3:1: lvs_timeouts is already defined at a:3"])


def test_a_file_that_can_be_executed_is_not_included(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(lb="include servers", servers=KEEPALIVED)
    (folder / "servers").chmod(0o755)
    code, _, err = run(capsys, "lb")
    reason = "servers: keepalived does not include a file that can be executed; change its mode"
    assert (code, problems(err)) == (2, [f"lb:1:1: include servers: {reason}"])


def test_rules_of_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    expected = run_rules(RULES, capsys)
    assert expected[0] == 0
    for program in ("ipvsadm", "/sbin/ipvsadm", "sudo ipvsadm", "\tsudo -n /usr/sbin/ipvsadm", "./ipvsadm"):
        script = "#!/bin/sh\n" + re.sub("^-", f"{program} -", RULES, flags=re.MULTILINE)
        assert run_rules(script, capsys) == expected
    _, _, err = run_rules("sudo /sbin/ipvsadm -A -t 10.0.0.1:80\nsudo ipvsadm -A -t 10.0.0.2:80 --pe sip\n", capsys)
    assert problems(err) == ["rules:2:1: persistenceEngine: needs persistent beside it"]


def test_names_in_rules(capsys: pytest.CaptureFixture[str]) -> None:
    rules = "-A -t lb.example:http -s wlc\n-A -t 10.0.0.1:http\n-a -t 10.0.0.1:80 -r [web-6]:www -m\n"
    hint = "; `ipvsadm -Sn` saves numbers instead of names)"
    code, _, err = run_rules(rules, capsys)
    assert (code, problems(err)) == (
        2,
        [
            f'rules:1:1: -t lb.example:http: "lb.example" is not an IP address (host names are not looked up{hint}',
            f"rules:2:1: -t 10.0.0.1:http: port http: expected a number from 0 to 65535 (names are not looked up{hint}",
            f'rules:3:1: -r [web-6]:www: "[web-6]" is not an IP address (host names are not looked up{hint}',
        ],
    )


def run_rules(text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    write(rules=text)
    return run(capsys, "rules")


def test_includes_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "main").write_text("include main\n")
    (folder / "link").symlink_to("nowhere")
    (folder / "other").write_text("\ninclude link\n")
    os.mkfifo(folder / "pipe")
    (folder / "third").write_text("include pipe\n")
    code, _, err = run(capsys, "main", "other", "third")
    assert code == 2
    assert problems(err) == [
        "main:1:1: main includes itself",
        "other:2:1: include link: link: No such file or directory",
        "third:1:1: include pipe: pipe: is a FIFO, not a regular file",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sandbox", "a b", "--netns", "a"], '--sandbox: "a b" is not valid; expected a sandbox ID or name'),
        (["--sandbox", "a", "--netns", "a/b"], '--netns: "a/b" is not valid; expected the name of a network namespace'),
        (["--sandbox", "a", "--vm", ""], '--vm: "" is not valid; expected the name of a virtual machine'),
    ],
)
def test_options_that_no_manifest_can_have(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", *words, "file"]) == 2
    assert capsys.readouterr().err.startswith(f"reconciler: {message}")


def test_names_of_digits_stay_text(capsys: pytest.CaptureFixture[str]) -> None:
    write(rules=RULES)
    assert main(["import", "--sandbox", "0123", "--netns", "123", "rules"]) == 0
    found = valid(capsys.readouterr().out)
    assert (found.id, found.driver) == ("0123", NetnsAddress(name="123"))


def test_letters_that_a_terminal_obeys_do_not_get_there(capsys: pytest.CaptureFixture[str]) -> None:
    write(lb=KEEPALIVED + "vrrp_\x1b[31m {\n}\n", bad="virtual_server \x1b[31m {\n}\n")
    _, _, err = run(capsys, "lb")
    assert "vrrp_\\x1b[31m: not imported" in err
    assert "\x1b" not in err + run(capsys, "bad")[2]


MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(30))


@MANY
@given(wanted=services())
def test_rules_that_are_imported_are_what_they_were(wanted: list[Service], capsys: pytest.CaptureFixture[str]) -> None:
    # A manifest does not take an engine without persistence.
    wanted = [each for each in wanted if each.persistent or not each.persistence_engine]
    if not wanted:
        return
    write(rules="\n".join(save_rules(wanted)))
    code, out, err = run(capsys, "rules")
    assert (code, err) == (0, "")
    found = valid(out).ipvs
    assert found is not None
    assert found.services == tuple(wanted)


@MANY
@given(numbers=st.lists(st.sampled_from(range(1, 99)), min_size=1, unique=True))
def test_documents_that_are_imported_are_what_they_were(numbers: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    nics = [
        {
            "device": f"tap{n}",
            "name": f"eth{n}",
            "IPAddresses": [{"Family": 2, "Address": f"10.{n}.0.2", "Mask": "24"}],
            "mtu": 1400 + n,
            "hwAddr": f"02:42:20:6f:a3:{n:02x}",
        }
        for n in numbers
    ]
    routes = [{"dest": f"10.{n}.1.0/24", "gateway": f"10.{n}.0.1", "device": f"eth{n}"} for n in numbers]
    write(documents=[*nics, *routes])
    code, out, err = run(capsys, "documents")
    assert (code, err) == (0, "")
    found = valid(out)
    assert [write_interface(each) for each in found.interfaces or ()] == nics
    assert [hop for each in found.routes or () for hop in write_route(each)] == routes


@MANY
@given(content=st.text() | st.binary(), notation=st.sampled_from(("kata", "ipvsadm", "keepalived", None)))
def test_any_file_is_imported_or_refused(
    content: str | bytes, notation: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
    code, out, err = run(capsys, "file", *(("--from", notation) if notation else ()))
    assert (code, out) == (2, "")
    assert err


def test_what_is_left_out_is_bounded_for_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Whether the reader leaves it out, or what is left out takes it along."""
    absent = {"ifname": "br0", "address": "02:42:20:6f:a3:01", "mtu": 1500, "linkinfo": {"info_kind": "bridge"}}
    needing = [{"dst": f"10.0.{n >> 8}.{n & 255}", "dev": "br0", "scope": "link"} for n in range(1500)]
    unknown = [{"dst": f"10.1.{n >> 8}.{n & 255}", "type": "anycast"} for n in range(1500)]
    write(links=[absent], needing=needing, unknown=[*unknown, {"type": "blackhole", "dst": "10.2.0.0/16"}])
    code, _, err = run(capsys, "links", "needing", "unknown")
    lines = err.splitlines()
    assert (code, len(lines)) == (0, 2003)
    assert lines[-2:] == [
        "unknown: 500 more parts that are not imported, which are not listed",
        "needing: 500 more parts that are not imported, which are not listed",
    ]
