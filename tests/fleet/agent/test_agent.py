"""The agent with a real gate and real TLS, over a store in memory: what it takes, reports and survives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.fleet import blobs, ca, keys, records
from reconciler.fleet.agent import agent as agent_module
from reconciler.fleet.agent.agent import Agent, Fleet
from reconciler.fleet.agent.client import Backoff, Client, Credentials, Gate, UnreachableError, parse_gate
from reconciler.fleet.memory import Memory
from reconciler.fleet.records import HostStatus
from reconciler.fleet.store import Delete, Put
from reconciler.watch import client as watch_client
from tests.fleet.gates import Certificates, Running, running
from tests.watch.running import until

FILES = {"a.yaml": b"a: 1\n", "below/b.yaml": b"b: 1\n"}


@pytest.fixture(autouse=True)
def no_watcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ask nobody else's watcher: another test of this host may have one."""
    monkeypatch.setattr(watch_client, "SOCKET", str(tmp_path / "watch.sock"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "fleet"
    monkeypatch.setattr("reconciler.fleet.agent.cache.FOLDER", str(found))
    monkeypatch.setattr("reconciler.fleet.agent.client.LONGEST", 0.3)
    return found


@pytest.fixture
def gate(certificates: Certificates) -> Iterator[Running]:
    with running(Memory(), certificates) as found:
        found.add_host("one")
        yield found


Start = Callable[..., Agent]


@pytest.fixture
def start(folder: Path, certificates: Certificates) -> Iterator[Start]:
    agents: list[Agent] = []

    def started(*ports: int, name: str = "one") -> Agent:
        made = certificates.host(name)
        found = Agent(
            Fleet(
                [Gate("127.0.0.1", each) for each in ports],
                Credentials(made.certificate, made.key, certificates.authority),
            )
        )
        agents.append(found)
        found.start()
        return found

    threads = threading.active_count()
    yield started
    for each in agents:
        if not each._ended.is_set():
            each.stop()
    until(lambda: threading.active_count() <= threads, "the end of all threads")


def seen(folder: Path) -> dict[str, bytes]:
    current = folder / "current"
    found = (each for each in current.rglob("*") if each.is_file() and not each.name.startswith("."))
    return {str(each.relative_to(current)): each.read_bytes() for each in found}


def reported(gate: Running) -> HostStatus | None:
    pair = gate.do(gate.store.read(keys.status("one")))
    return records.decode(HostStatus, pair.value) if pair else None


def test_a_release_is_taken_and_the_next_one_as_well(gate: Running, start: Start, folder: Path) -> None:
    gate.want("one", "r1", FILES)
    start(gate.port)
    until(lambda: seen(folder) == FILES, "the first release")
    gate.want("one", "r2", {"a.yaml": b"a: 2\n"})
    until(lambda: seen(folder) == {"a.yaml": b"a: 2\n"}, "the second one")
    gate.want("one", "r3", {})
    until(lambda: seen(folder) == {}, "the empty one")
    until(lambda: (found := reported(gate)) is not None and found.release == "r3", "the report")
    found = reported(gate)
    assert found
    # No watcher runs here.
    assert (found.reached, found.alarms) == (False, ("no watcher answers on this host",))


def test_nothing_is_deleted_because_nobody_says_anything(
    gate: Running, start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.fleet.gate.application.WAIT", 0.3)
    monkeypatch.setattr("reconciler.fleet.gate.application.SPREAD", 0.1)
    gate.want("one", "r1", FILES)
    agent = start(gate.port)
    until(lambda: seen(folder) == FILES, "the release")
    gate.do(gate.store.commit([Delete(keys.desired("one"))]))
    gate.add_host("one", fenced=True)
    until(lambda: "fenced" in agent._problems.get("desired", ""), "the refusal")
    assert seen(folder) == FILES
    gate.add_host("one")
    until(lambda: not agent._problems, "the end of it")
    assert seen(folder) == FILES


def test_a_gate_that_ends_is_left_for_the_next_one_and_without_any_all_goes_on(
    gate: Running, start: Start, folder: Path, certificates: Certificates
) -> None:
    gate.want("one", "r1", FILES)
    with running(gate.store, certificates) as other:
        agent = start(gate.port, other.port)
        until(lambda: seen(folder) == FILES, "the release")
        # Between two questions, neither of them has one.
        until(lambda: gate.gate.mirror.waiting + other.gate.mirror.waiting == 1, "the question")
        busy, spare = (gate, other) if gate.gate.mirror.waiting else (other, gate)
    if busy is other:
        until(lambda: spare.gate.mirror.waiting == 1, "the question at the other one")
    gate.want("one", "r2", {"a.yaml": b"a: 2\n"})
    until(lambda: seen(folder) == {"a.yaml": b"a: 2\n"}, "the next release")
    until(lambda: not agent._problems, "no problem")


def test_it_starts_without_any_gate_and_keeps_what_it_has(
    gate: Running, start: Start, folder: Path, certificates: Certificates
) -> None:
    gate.want("one", "r1", FILES)
    start(gate.port).stop()
    # Nobody listens there.
    start(9).stop()
    first = start(gate.port)
    until(lambda: seen(folder) == FILES, "the release")
    first.stop()
    again = start(9)
    until(lambda: "desired" in again._problems and "report" in again._problems, "the problems")
    assert seen(folder) == FILES
    assert all(each.is_alive() for each in again._threads)


@pytest.mark.parametrize("wrong", [b"", b"\x00" * 100, blobs.pack(b"another: 1\n"), blobs.pack(b"a: 1\n")[:-3]])
def test_a_file_that_is_wrong_changes_nothing_until_it_is_right(
    gate: Running, start: Start, folder: Path, wrong: bytes
) -> None:
    gate.want("one", "r1", FILES)
    agent = start(gate.port)
    until(lambda: seen(folder) == FILES, "the release")
    new = b"a: 2\n"
    key = keys.blob("one", blobs.digest(new))
    desired = records.encode(records.Desired("r2", "c0ffee", files={"a.yaml": blobs.digest(new)}))
    gate.do(gate.store.commit([Put(key, wrong), Put(keys.desired("one"), desired)]))
    until(lambda: "desired" in agent._problems, "the problem")
    assert seen(folder) == FILES
    until(lambda: (found := reported(gate)) is not None and any("fleet: " in each for each in found.alarms), "an alarm")
    gate.put(key, blobs.pack(new))
    until(lambda: seen(folder) == {"a.yaml": new}, "the right file")
    until(lambda: "desired" not in agent._problems, "no problem")


def test_a_desired_state_that_leads_elsewhere_changes_nothing(gate: Running, start: Start, folder: Path) -> None:
    gate.want("one", "r1", FILES)
    agent = start(gate.port)
    until(lambda: seen(folder) == FILES, "the release")
    gate.want("one", "r2", {"../../evil.yaml": b"a: 1\n"})
    until(lambda: "not plainly below its folder" in agent._problems.get("desired", ""), "the problem")
    assert seen(folder) == FILES
    assert not [*folder.parent.rglob("evil.yaml")]


def test_what_was_damaged_on_disk_is_repaired(
    gate: Running, start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "CHECK", 0.0)
    monkeypatch.setattr("reconciler.fleet.gate.application.WAIT", 0.3)
    monkeypatch.setattr("reconciler.fleet.gate.application.SPREAD", 0.1)
    gate.want("one", "r1", FILES)
    start(gate.port)
    until(lambda: seen(folder) == FILES, "the release")
    (folder / "current" / "a.yaml").write_text("a: 3\n")
    until(lambda: seen(folder) == FILES, "the repair")


def test_a_certificate_is_renewed_while_the_agent_runs(
    gate: Running, folder: Path, certificates: Certificates, tmp_path: Path
) -> None:
    old = certificates.host("one")
    shown = Credentials(str(tmp_path / "host.crt"), str(tmp_path / "host.key"), certificates.authority)
    shutil.copy(old.certificate, shown.certificate)
    shutil.copy(old.key, shown.key)
    gate.want("one", "r1", FILES)
    agent = Agent(Fleet([Gate("127.0.0.1", gate.port)], shown))
    agent.start()
    try:
        until(lambda: seen(folder) == FILES, "the release")
        renewed = ca.issue(certificates.folder, ca.HOST._replace(folder="renewed"), "one")
        gate.add_host("one", fingerprint=renewed.fingerprint)
        until(lambda: "not the certificate" in agent._problems.get("desired", ""), "the end of the old one")
        shutil.copy(renewed.certificate, shown.certificate)
        shutil.copy(renewed.key, shown.key)
        gate.want("one", "r2", {"a.yaml": b"a: 2\n"})
        until(lambda: seen(folder) == {"a.yaml": b"a: 2\n"}, "the next release")
    finally:
        agent.stop()


def test_a_defect_ends_nothing(gate: Running, start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def defective(*_: Any, **__: Any) -> Any:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(agent_module, "read_version", defective)
        patch.setattr(agent_module, "report", defective)
        gate.want("one", "r1", FILES)
        agent = start(gate.port)
        until(lambda: calls >= 6, "some tries")
        assert all(each.is_alive() for each in agent._threads)
    until(lambda: seen(folder) == FILES, "the release")


def test_a_gate_whose_certificate_names_another_server_is_not_believed(
    gate: Running, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = certificates.host("one")
    client = Client([Gate("127.0.0.2", gate.port)], Credentials(made.certificate, made.key, certificates.authority))
    with pytest.raises(UnreachableError):
        client.ask("/v1/desired", limit=1000)
    other = Certificates(Path(certificates.folder) / "other")
    client = Client([Gate("127.0.0.1", gate.port)], Credentials(made.certificate, made.key, other.authority))
    with pytest.raises(UnreachableError, match="its certificate is not accepted"):
        client.ask("/v1/desired", limit=1000)


def test_pauses_grow_and_are_random() -> None:
    backoff = Backoff(2)
    pauses = []
    for _ in range(30):
        backoff.reset()
        pauses.append([backoff.next() for _ in range(40)])
    # One gate of two has failed: the other one is asked soon. Later, each round waits for up to half a minute.
    assert all(each[0] <= 0.5 for each in pauses)
    assert max(each[-1] for each in pauses) > 10
    assert min(each[-1] for each in pauses) < 20
    assert all(pause <= 30 for each in pauses for pause in each)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://gate.example:8443", Gate("gate.example", 8443)),
        ("https://gate.example", Gate("gate.example", 443)),
        ("https://[2001:db8::1]:8443/", Gate("2001:db8::1", 8443)),
    ],
)
def test_a_url_of_a_gate(url: str, expected: Gate) -> None:
    assert parse_gate(url) == expected


@pytest.mark.parametrize(
    "url", ["http://a:1", "a:1", "https://", "https://a/b", "https://u:p@a", "https://a:x", "https://a?b", "ftp://a"]
)
def test_a_url_of_no_gate(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_gate(url)


def test_it_needs_little_memory(gate: Running, certificates: Certificates, tmp_path: Path) -> None:
    """As a process of its own, with a release of 50 manifests."""
    gate.want("one", "r1", {f"s{each}.yaml": b"x: 1\n" * 500 + str(each).encode() for each in range(50)})
    made = certificates.host("one")
    code = (
        "import sys; from reconciler.fleet.agent import cache; cache.FOLDER = sys.argv[1]; "
        "from reconciler.cli.main import main; main(sys.argv[2:])"
    )
    words = ["--server", f"https://127.0.0.1:{gate.port}", "--cert", made.certificate, "--key", made.key]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "own"), "fleet", "agent", *words, "--ca", certificates.authority],
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: len(seen(tmp_path / "own")) == 50, "the release")
        until(lambda: reported(gate) is not None, "the report")
        time.sleep(0.2)
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        (peak,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        modules = os.listdir(f"/proc/{process.pid}/map_files")
        assert peak < 25 << 10, (peak, len(modules))
    finally:
        process.terminate()
        assert process.wait(20) == 0
