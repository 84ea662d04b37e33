"""The command line itself, installed in the guest, on namespaces of the guest: a host of its own, and no agent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.formats.table import FULL
from tests.ipvs import bundle
from tests.ipvs.place import BEGIN, Vm, Worker
from tests.ipvs.rules import rules
from tests.machine import Guest, Ran

NAMESPACES = ("one", "two")


@pytest.fixture
def host(installed: Guest) -> Iterator[Guest]:
    """The guest, with two namespaces."""
    for name in NAMESPACES:
        installed.output("sh", "-c", f"set -e; ip netns add {name}; ip netns exec {name} sh -c '{BEGIN}'")
    yield installed
    for name in NAMESPACES:
        installed.output("ip", "netns", "del", name)


def manifest(namespace: str, rules: str) -> bytes:
    text = "".join(f"    {line}\n" for line in rules.splitlines())
    driver = f"{{netns: {{name: {namespace}}}}}"
    return f"apiVersion: reconciler/v1\nsandbox: box\ndriver: {driver}\nipvs:\n  rules: |\n{text}".encode()


def run(host: Guest, command: str, namespace: str, rules: str, *options: str) -> Ran:
    return host.run(bundle.COMMAND, command, *options, "-", stdin=manifest(namespace, rules))


def saved(host: Guest, namespace: str) -> list[str]:
    return host.output("ip", "netns", "exec", namespace, "ipvsadm", "-Sn").splitlines()


def told(host: Guest, namespace: str) -> tuple[list[str], list[str]]:
    words = ("ip", "netns", "exec", namespace, "ipvsadm", "-Ln", "--thresholds")
    return saved(host, namespace), host.output(*words).splitlines()


def test_the_table_is_that_of_the_relay(host: Guest, vm: Vm) -> None:
    vm.apply(rules=FULL)
    over_the_relay = vm.table()
    vm.clear()
    ran = run(host, "apply", "one", FULL)
    assert ran.status == 0, ran
    assert told(host, "one") == over_the_relay
    assert run(host, "diff", "one", FULL).status == 0
    # Of no other namespace: neither the guest's own nor the one beside it.
    assert (vm.saved(), saved(host, "two")) == ([], [])


def test_exit_codes_are_those_of_a_command(host: Guest) -> None:
    text = "\n".join(rules(2))
    right, wrong, gone = (
        manifest(namespace, each).decode()
        for namespace, each in (("one", text), ("one", f"{text}\n-A -t 10.0.0.1:80 -s rrr"), ("three", text))
    )
    helper = Worker(host)
    # A process of its own costs seconds, so one does all but two of them.
    assert helper.ask({"run": [bundle.COMMAND, "diff", "-"], "stdin": right}).status == 1
    for name, each in (("right", right), ("gone", gone)):
        helper.ask({"file": f"/tmp/{name}.yaml", "text": each})
    for command in ("validate", "apply", "diff"):
        assert helper.ask({"reconciler": [command, "/tmp/right.yaml"]}).status == 0
    shown = helper.ask({"reconciler": ["show", "/tmp/right.yaml"]})
    assert (shown.status, shown.stderr) == (0, "")
    helper.ask({"file": "/tmp/shown.yaml", "text": shown.stdout})
    ran = helper.ask({"reconciler": ["diff", "/tmp/shown.yaml"]})
    assert ran.status == 0, ran
    ran = helper.ask({"run": [bundle.COMMAND, "apply", "-"], "stdin": wrong})
    assert ran.status == 2
    assert "<stdin>:14:5: ipvs.rules line 9: -s rrr: unknown" in ran.stderr
    ran = helper.ask({"reconciler": ["apply", "/tmp/gone.yaml"]})
    assert ran.status == 2
    assert "does not exist" in ran.stderr
    helper.close()
    assert sorted(saved(host, "one")) == sorted(text.splitlines())


def test_without_any_address_we_say_why_the_kernel_refuses(host: Guest) -> None:
    """`lo` down and no address: its kernel has no local table yet, and says "Invalid argument" of IPv4 servers."""
    host.output("ip", "netns", "add", "bare")
    try:
        text = (
            "-A -t 10.1.0.1:80\n-a -t 10.1.0.1:80 -r 10.9.9.1:80 -m\n-A -t [fd00::1]:80\n"
            "-a -t [fd00::1]:80 -r fd00::9 -m\n"
        )
        ran = run(host, "apply", "bare", text)
        assert ran.status == 2
        assert b"no IPv4 address, not even 127.0.0.1 of lo" in ran.stderr
        assert b"1 of 4 operations failed: ipvsadm -a -t 10.1.0.1:80 -r 10.9.9.1:80 -m" in ran.stderr
        assert b"the kernel: Invalid argument" in ran.stderr
        host.output("ip", "-n", "bare", "link", "set", "lo", "up")
        ran = run(host, "apply", "bare", text)
        assert ran.status == 0, ran
        assert b"not even that" not in ran.stderr
        assert len(saved(host, "bare")) == 4
    finally:
        host.output("ip", "netns", "del", "bare")


def test_20_000_rules(host: Guest) -> None:
    lines = rules()
    ran = run(host, "apply", "one", "\n".join(lines))
    assert ran.status == 0, ran
    assert b"applied 20,000 operations" in ran.stdout
    assert sorted(saved(host, "one")) == sorted(lines)


def test_killed_at_any_point_and_run_again(host: Guest) -> None:
    """A killed process leaves no lock, and the next one goes on; two at once are one, or one and one that says so."""
    lines = rules(1500)
    script = f"""
    cat >/tmp/killed.yaml
    for pause in 2.2 3 4; do
        {bundle.COMMAND} apply /tmp/killed.yaml >/dev/null 2>&1 & sleep $pause; kill -9 $!; wait $!
    done
    {bundle.COMMAND} apply /tmp/killed.yaml 2>/tmp/first & {bundle.COMMAND} apply /tmp/killed.yaml 2>/tmp/second
    echo second $?; wait $!; echo first $?
    cat /tmp/first /tmp/second >&2
    rm /tmp/killed.yaml /tmp/first /tmp/second
    """
    ran = host.run("sh", "-c", script, stdin=manifest("one", "\n".join(lines)))
    assert ran.status == 0
    words = ran.stdout.decode().split()
    codes = {words[words.index(name) + 1] for name in ("first", "second")}
    assert codes <= {"0", "2"}, ran
    assert "0" in codes, ran
    if "2" in codes:
        assert b"another reconciler is changing netns one" in ran.stderr
    assert sorted(saved(host, "one")) == sorted(lines)
