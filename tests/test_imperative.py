"""Single commands over a sandbox in memory: which one is meant, its table afterwards, and that nobody comes between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from reconciler import imperative
from reconciler.errors import HostError, ManifestError, SandboxGoneError
from reconciler.formats.ipvsadm.command import parse_command
from reconciler.guest import launch
from reconciler.guest.launch import MachineState
from reconciler.imperative import find, lock, table_after, table_with
from reconciler.model.ipvs import RULES_MAX, Ipvs, Server, Service
from reconciler.model.sandbox import NetnsAddress, Sandbox, VmAddress
from reconciler.values import replace
from tests.allowed import POLICY
from tests.manifest.texts import manifest
from tests.plan.sandboxes import DRIVER
from tests.test_converge import OTHER_ROUTE, ROUTE, TLS, WEB, Box


def write(folder: Path, *names: str) -> list[str]:
    for name in names:
        driver = f"driver: {{netns: {{name: n-{name}}}}}"
        (folder / f"{name}.yaml").write_text(manifest(f"sandbox: {name}", driver, "routes: []"))
    return [str(folder)]


def test_a_sandbox_is_found_by_its_id_or_the_beginning_of_it(tmp_path: Path) -> None:
    paths = write(tmp_path, "6ec7a98b", "6ec7b", "6e")
    sandbox = Sandbox(id="6ec7a98b", driver=NetnsAddress(name="n-6ec7a98b"))
    assert find("6ec7a", paths) == find("6ec7a98b", paths) == sandbox
    # The whole ID of one is the beginning of others.
    assert find("6e", paths).id == "6e"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("6ec", HostError, "several IDs begin with 6ec: 6ec7a98b, 6ec7b"),
        ("7", SandboxGoneError, "no sandbox has an ID that begins with '7' in these manifests"),
        ("", SandboxGoneError, "no sandbox has an ID that begins with '' in these manifests"),
    ],
)
def test_a_sandbox_that_is_not_found(name: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        find(name, write(tmp_path, "6ec7a98b", "6ec7b"))
    assert str(caught.value) == message


def test_manifests_that_are_wrong_are_none(tmp_path: Path) -> None:
    paths = write(tmp_path, "a")
    (tmp_path / "b.yaml").write_text("sandbox: b")
    with pytest.raises(ManifestError):
        find("a", paths)


def test_without_manifests_it_is_a_machine_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [MachineState("web-1", "running", 7, 1), MachineState("web-2", "dead", None, None)]
    monkeypatch.setattr(launch, "states", lambda: states)
    assert find("web", []) == Sandbox(id="web-1", driver=VmAddress(name="web-1"))
    with pytest.raises(SandboxGoneError, match="among the machines that run; others are found with --manifests"):
        find("web-2", [])


S1, S2 = Server(address="172.16.0.9", port=80), Server(address="172.16.0.8", port=80)
FOREIGN = replace(TLS, marked=False)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("-A -t 10.0.0.9:80", (WEB, Service(protocol="tcp", address="10.0.0.9", port=80))),
        ("-E -t 10.10.0.1:80 -s sh", (replace(WEB, scheduler="sh"),)),
        ("-E -t 10.10.0.1:443 -s sh", (WEB, replace(TLS, scheduler="sh"))),
        ("-D -t 10.10.0.1:80", ()),
        ("-D -t 10.10.0.1:443", (WEB,)),
        ("-a -t 10.10.0.1:80 -r 172.16.0.9", (replace(WEB, servers=(*WEB.servers, S1)),)),
        ("-a -t 10.10.0.1:443 -r 172.16.0.9:80", (WEB, replace(TLS, servers=(*TLS.servers, S1)))),
        (
            "-e -t 10.10.0.1:80 -r 172.16.0.1:8080",
            (replace(WEB, servers=(WEB.servers[1], replace(WEB.servers[0], weight=1))),),
        ),
        ("-d -t 10.10.0.1:80 -r 172.16.0.1:8080", (replace(WEB, servers=WEB.servers[1:]),)),
    ],
)
def test_the_table_after_a_command(command: str, expected: tuple[Service, ...]) -> None:
    assert table_after(parse_command(command), [WEB], [FOREIGN]) == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("-A -t 10.10.0.1:80", "-A -t 10.10.0.1:80: this service is there already"),
        ("-A -t 10.10.0.1:443", "-A -t 10.10.0.1:443: this service is there already"),
        ("-E -t 10.10.0.9:80", "-E -t 10.10.0.9:80: no such service"),
        ("-D -u 10.10.0.1:80", "-D -u 10.10.0.1:80: no such service"),
        ("-a -t 10.10.0.9:80 -r 172.16.0.9", "-a -t 10.10.0.9:80: no such service"),
        (
            "-a -t 10.10.0.1:80 -r 172.16.0.1:8080",
            "-a -t 10.10.0.1:80 -r 172.16.0.1:8080: this server is there already",
        ),
        ("-e -t 10.10.0.1:80 -r 172.16.0.9", "-e -t 10.10.0.1:80 -r 172.16.0.9:80: no such server"),
        ("-d -t 10.10.0.1:80 -r 172.16.0.9", "-d -t 10.10.0.1:80 -r 172.16.0.9:80: no such server"),
    ],
)
def test_a_command_that_cannot_be_carried_out(command: str, message: str) -> None:
    with pytest.raises(HostError) as caught:
        table_after(parse_command(command), [WEB], [FOREIGN])
    assert str(caught.value) == message


def test_rules_come_to_what_is_there() -> None:
    other = replace(WEB, port=81)
    assert table_with([other], [WEB], [FOREIGN]) == (WEB, other)
    for there in (WEB, FOREIGN):
        with pytest.raises(HostError, match="this service is there already; clear the table"):
            table_with([other, there], [WEB], [FOREIGN])


def test_a_table_has_a_limit() -> None:
    many = [replace(WEB, port=number, servers=()) for number in range(1, RULES_MAX + 1)]
    assert len(table_with(many, [], [])) == RULES_MAX
    message = "that would be 20,001 IPVS rules, services and servers; at most 20,000 are possible"
    with pytest.raises(HostError, match=message):
        table_with(many, [replace(TLS, protocol="udp", servers=())], [])
    with pytest.raises(HostError, match=message):
        table_after(parse_command("-A -u 10.0.0.1:1"), many, [])


class Again(Box):
    """May be locked again within, as drivers may."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        self.locked = True
        try:
            yield
        finally:
            self.locked = False

    def observe(self, desired: Sandbox, **options: Any) -> Any:
        assert self.locked
        return super().observe(desired, **options)


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Again:
    made = Again()

    def connect(*_: object) -> AbstractContextManager[Again]:
        return nullcontext(made)

    monkeypatch.setattr(imperative, "connect", connect)
    return made


def test_all_looks_and_changes_are_under_one_lock(box: Again) -> None:
    box.routes = [ROUTE]
    with lock(Sandbox(id="box", driver=DRIVER), POLICY) as locked:
        assert locked.observed.sandbox.routes == (ROUTE,)
        assert locked.set_routes([ROUTE, OTHER_ROUTE])
    assert box.routes == [ROUTE, OTHER_ROUTE]
    assert not box.locked
    with lock(Sandbox(id="box", driver=DRIVER), POLICY) as locked:
        assert not locked.set_routes(locked.observed.sandbox.routes or ())


def test_what_is_named_may_go_whatever_its_share(box: Again) -> None:
    box.kernel.add(WEB)
    box.kernel.add(TLS, marked=False)
    with lock(Sandbox(id="box", driver=DRIVER, ipvs=Ipvs()), POLICY) as locked:
        assert locked.set_ipvs(Ipvs(services=(WEB,)), adopt=frozenset({TLS.key}))
        assert locked.set_ipvs(Ipvs(services=()))
    assert not box.kernel.services
