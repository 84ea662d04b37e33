"""Our command line on namespaces of a host that has IPVS, without an agent."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.formats.table import FULL
from tests.ipvs.place import BEGIN, MachineTable
from tests.ipvs.rules import rules
from tests.uml import Ran, Uml

COMMAND = (sys.executable, "-m", "reconciler")
NAMESPACES = ("one", "two")


@pytest.fixture
def host(uml: Uml) -> Iterator[Uml]:
    """A host with two namespaces."""
    for name in NAMESPACES:
        uml.output("sh", "-c", f"set -e; ip netns add {name}; ip netns exec {name} sh -c '{BEGIN}'")
    yield uml
    for name in NAMESPACES:
        uml.output("ip", "netns", "del", name)


def manifest(namespace: str, rules: str) -> str:
    text = "".join(f"    {line}\n" for line in rules.splitlines())
    driver = f"{{netns: {{name: {namespace}}}}}"
    return f"apiVersion: reconciler/v1\nsandbox: box\ndriver: {driver}\nipvs:\n  rules: |\n{text}"


def run(host: Uml, command: str, namespace: str, rules: str) -> Ran:
    """Run a command of ours."""
    return host.reconciler(command, host.file("netns.yaml", manifest(namespace, rules)))


def process(host: Uml, command: str, namespace: str, rules: str) -> Ran:
    """Run a command of ours as a process of its own, which takes a second there."""
    return host.run(*COMMAND, command, "-", stdin=manifest(namespace, rules))


def saved(host: Uml, namespace: str) -> list[str]:
    return host.output("ip", "netns", "exec", namespace, "ipvsadm", "-Sn").splitlines()


def told(host: Uml, namespace: str) -> tuple[list[str], list[str]]:
    words = ("ip", "netns", "exec", namespace, "ipvsadm", "-Ln", "--thresholds")
    return saved(host, namespace), host.output(*words).splitlines()


def test_the_table_is_that_of_the_relay(host: Uml, reached: MachineTable) -> None:
    reached.apply(rules=FULL)
    over_the_relay = reached.table()
    ran = run(host, "apply", "one", FULL)
    assert ran.status == 0, ran
    assert told(host, "one") == over_the_relay
    assert run(host, "diff", "one", FULL).status == 0
    # Of no other namespace.
    assert saved(host, "two") == []


def test_exit_codes_are_those_of_a_command(host: Uml) -> None:
    text = "\n".join(rules(2))
    assert process(host, "diff", "one", text).status == 1
    assert run(host, "validate", "one", text).status == 0
    assert process(host, "apply", "one", text).status == 0
    assert run(host, "diff", "one", text).status == 0
    shown = run(host, "show", "one", text)
    assert (shown.status, shown.stderr) == (0, "")
    ran = host.reconciler("diff", host.file("shown.yaml", shown.stdout))
    assert ran.status == 0, ran
    ran = process(host, "apply", "one", f"{text}\n-A -t 10.0.0.1:80 -s rrr")
    assert ran.status == 2
    assert "<stdin>:14:5: ipvs.rules line 9: -s rrr: unknown" in ran.stderr
    ran = run(host, "apply", "three", text)
    assert ran.status == 2
    assert "does not exist" in ran.stderr
    assert sorted(saved(host, "one")) == sorted(text.splitlines())


def test_without_any_address_we_say_why_the_kernel_refuses(host: Uml) -> None:
    """`lo` down and no address: its kernel has no local table yet, and says "Invalid argument" of IPv4 servers."""
    host.output("ip", "netns", "add", "bare")
    try:
        text = (
            "-A -t 10.1.0.1:80\n-a -t 10.1.0.1:80 -r 10.9.9.1:80 -m\n-A -t [fd00::1]:80\n"
            "-a -t [fd00::1]:80 -r fd00::9 -m\n"
        )
        ran = run(host, "apply", "bare", text)
        assert ran.status == 2
        assert "no IPv4 address, not even 127.0.0.1 of lo" in ran.stderr
        assert "1 of 4 operations failed: ipvsadm -a -t 10.1.0.1:80 -r 10.9.9.1:80 -m" in ran.stderr
        assert "the kernel: Invalid argument" in ran.stderr
        host.output("ip", "-n", "bare", "link", "set", "lo", "up")
        ran = run(host, "apply", "bare", text)
        assert ran.status == 0, ran
        assert "not even that" not in ran.stderr
        assert len(saved(host, "bare")) == 4
    finally:
        host.output("ip", "netns", "del", "bare")


def test_20_000_rules(host: Uml) -> None:
    lines = rules()
    ran = run(host, "apply", "one", "\n".join(lines))
    assert ran.status == 0, ran
    assert "applied 20,000 operations" in ran.stdout
    assert sorted(saved(host, "one")) == sorted(lines)


def test_killed_at_any_point_and_run_again(host: Uml) -> None:
    """A killed process leaves no lock, and the next one goes on; two at once are one, or one and one that says so."""
    lines = rules(1500)
    apply = f"{' '.join(COMMAND)} apply /tmp/killed.yaml"
    script = f"""
    cat >/tmp/killed.yaml
    for pause in 0.3 0.5 0.9; do
        {apply} >/dev/null 2>&1 & sleep $pause; kill -9 $!; wait $!
    done
    {apply} 2>/tmp/first & {apply} 2>/tmp/second
    echo second $?; wait $!; echo first $?
    cat /tmp/first /tmp/second >&2
    rm /tmp/killed.yaml /tmp/first /tmp/second
    """
    ran = host.run("sh", "-c", script, stdin=manifest("one", "\n".join(lines)))
    assert ran.status == 0
    words = ran.stdout.split()
    codes = {words[words.index(name) + 1] for name in ("first", "second")}
    assert codes <= {"0", "2"}, ran
    assert "0" in codes, ran
    if "2" in codes:
        assert "another reconciler is changing netns one" in ran.stderr
    assert sorted(saved(host, "one")) == sorted(lines)
