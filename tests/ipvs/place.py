"""Where an IPVS table is: a machine that is reached through the agent, or a namespace of a host that the command is on.

A table is checked by the real ipvsadm there, not by our own decoder.
"""

from __future__ import annotations

import json
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.manifest.dump import dump
from tests.allowed import runtime
from tests.commands import call
from tests.kata import limits
from tests.machine import Guest, Machine
from tests.uml import Ran, Uml

# The sandbox. No other test has a watcher for one of this name, about which a command would warn.
ID = "table"
# An address, without which a kernel refuses servers of IPv4; and what is put back when a test has changed it.
SYSCTLS = "/proc/sys/net/ipv4/vs"
DEFAULT_TIMEOUTS = "900 120 300"
BEGIN = "busybox ip link set lo up; busybox ip address add 10.9.9.9/32 dev lo; modprobe ip_vs"
_END = f"ipvsadm -C; ipvsadm --set {DEFAULT_TIMEOUTS}; busybox ip address del 10.9.9.9/32 dev lo; cd {SYSCTLS}"


@dataclass
class TablePlace(ABC):
    """A table, our command line, and a shell beside it."""

    name: str
    _number: int = 0

    @property
    @abstractmethod
    def driver(self) -> dict[str, Any]:
        """How a manifest names it."""

    @abstractmethod
    def reconciler(self, *words: str) -> Ran:
        """Run our command line."""

    @abstractmethod
    def run(self, *words: str, stdin: str = "") -> Ran:
        """Run a command beside the table."""

    @abstractmethod
    def file(self, name: str, text: str) -> str:
        """Write a file for the command line; give its path."""

    @abstractmethod
    @contextmanager
    def begun(self) -> Iterator[None]:
        """Have an empty table with the settings of a new kernel."""

    def output(self, *words: str, stdin: str = "") -> str:
        """Run what has to succeed; give what it prints."""
        ran = self.run(*words, stdin=stdin)
        assert (ran.status, ran.stderr) == (0, ""), ran
        return ran.stdout

    def shell(self, script: str) -> str:
        return self.output("sh", "-c", f"set -e; {script}")

    def services(self, table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give what can be said here of services and their servers."""
        return list(table)

    def lines(self, rules: Sequence[str]) -> list[str]:
        """Give what can be said here of rules of ipvsadm."""
        return list(rules)

    def manifest(self, **ipvs: Any) -> str:
        """Write a manifest of this table."""
        return self.file("manifest.yaml", self.text(**ipvs))

    def text(self, **ipvs: Any) -> str:
        return dump([{"apiVersion": "reconciler/v1", "sandbox": ID, "driver": self.driver, "ipvs": ipvs}])

    def apply(self, *options: str, **ipvs: Any) -> Ran:
        """Apply a manifest; it must succeed, and leave nothing to do."""
        path = self.manifest(**ipvs)
        ran = self.reconciler("apply", *options, path)
        assert ran.status == 0, ran
        assert "in sync" in self.reconciler("diff", path).stdout
        return ran

    def diff(self, *options: str, **ipvs: Any) -> list[str]:
        """Give the commands that would be executed."""
        ran = self.reconciler("diff", "-o", "json", *options, self.manifest(**ipvs))
        assert ran.status in {0, 1}, ran
        (sandbox,) = json.loads(ran.stdout)["sandboxes"]
        commands = [each["command"] for each in sandbox["operations"]]
        assert ran.status == bool(commands)
        return commands

    def verbs(self, commands: Sequence[str]) -> list[str]:
        """Say what each command of ipvsadm does to a rule: `-A`, `-d` …; leave out what is no such command."""
        return [words[1] for words in map(str.split, commands) if words[0] == "ipvsadm"]

    def load(self, rules: str) -> None:
        """Add rules with the real ipvsadm."""
        assert self.output("ipvsadm", "-R", stdin=rules) == ""

    def saved(self) -> list[str]:
        """Say what the real ipvsadm saves, in its order."""
        return self.output("ipvsadm", "-Sn").splitlines()

    def thresholds(self) -> list[str]:
        """Say what only `ipvsadm -Ln --thresholds` tells, in its order."""
        return self.output("ipvsadm", "-Ln", "--thresholds").splitlines()

    def table(self, before: str = "true", stdin: str = "") -> tuple[list[str], list[str]]:
        """Say both, after a command; fewer commands are fewer times to wait for the guest."""
        script = f"set -e; {before}; ipvsadm -Sn; echo ==; ipvsadm -Ln --thresholds"
        saved, _, thresholds = self.output("sh", "-c", script, stdin=stdin).partition("==\n")
        return saved.splitlines(), thresholds.splitlines()

    def clear(self) -> None:
        self.output("ipvsadm", "-C")


@dataclass
class MachineTable(TablePlace):
    """A machine's own table, through the agent."""

    guest: Machine = field(kw_only=True)
    folder: Path = field(kw_only=True)

    @property
    def driver(self) -> dict[str, Any]:
        return self.guest.driver

    def reconciler(self, *words: str) -> Ran:
        return Ran(*call(list(words)))

    def run(self, *words: str, stdin: str = "") -> Ran:
        ran = self.guest.run(*words, stdin=stdin.encode())
        return Ran(ran.status, ran.stdout.decode(), ran.stderr.decode())

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    @contextmanager
    def begun(self) -> Iterator[None]:
        before = self.shell(f"{BEGIN}; ipvsadm -C; cd {SYSCTLS}; grep . *").splitlines()
        yield
        put_back = "".join(f"echo {value} >{name}; " for name, _, value in (line.partition(":") for line in before))
        self.shell(f"{_END}; {put_back}")


@dataclass
class Vm(MachineTable):
    """The own table of a guest of QEMU."""

    guest: Guest = field(kw_only=True)


@dataclass
class Domain(Vm):
    """The own table of a domain of libvirt."""

    @property
    def driver(self) -> dict[str, Any]:
        return {"libvirt": {"domain": self.guest.sandbox.name}}


@dataclass
class Kata(Vm):
    """The guest's own table, by the command line of kata-runtime, which our own program has."""

    @property
    def driver(self) -> dict[str, Any]:
        return {"kata": {"id": self.guest.sandbox.name, "runtime": runtime()}}

    def services(self, table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return limits.services(table)

    def lines(self, rules: Sequence[str]) -> list[str]:
        return limits.lines(rules)

    def verbs(self, commands: Sequence[str]) -> list[str]:
        found = []
        for words in map(shlex.split, commands):
            assert words[:2] == ["kata-runtime", "kata-ipvs"]
            match words[2:]:
                case ["ipvsadm", "--parameters", parameters, container]:
                    found.append(parameters.split()[0])
                case ["ipvsadm", "--restore", "-", container, rule] if rule.startswith("<<<"):
                    found.append(rule.removeprefix("<<<").split()[0])
                case ["cleanup", "--parameters", _, container]:
                    pass
                case _:
                    raise AssertionError(words)
            assert container == self.guest.sandbox.name
        return found


@dataclass
class Netns(TablePlace):
    """A namespace of a host of its own, by the command line there."""

    host: Uml = field(kw_only=True)

    @property
    def namespace(self) -> str:
        return f"box{self._number}"

    @property
    def driver(self) -> dict[str, Any]:
        return {"netns": {"name": self.namespace}}

    def reconciler(self, *words: str) -> Ran:
        return self.host.reconciler(*words)

    def run(self, *words: str, stdin: str = "") -> Ran:
        return self.host.run("ip", "netns", "exec", self.namespace, *words, stdin=stdin)

    def file(self, name: str, text: str) -> str:
        return self.host.file(name, text)

    @contextmanager
    def begun(self) -> Iterator[None]:
        self._number += 1
        self.host.output("ip", "netns", "add", self.namespace)
        self.shell(BEGIN)
        yield
        self.host.output("ip", "netns", "del", self.namespace)
