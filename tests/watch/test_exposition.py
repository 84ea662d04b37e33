"""The metrics as Prometheus reads them: names, values, formats, and whatever a sandbox is called."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from reconciler import errors
from reconciler.converge import Failure, Result
from reconciler.guest.qmp import QmpError
from reconciler.manifest.load import Manifest
from reconciler.model.ipvs import Server
from reconciler.model.policy import DEFAULTS
from reconciler.model.sandbox import NetnsAddress, Sandbox, VmAddress
from reconciler.operations.ipvs import DrainServer
from reconciler.version import installed_version
from reconciler.watch import clock as clock_module
from reconciler.watch import meter
from reconciler.watch.exposition import Metrics, Snapshot
from reconciler.watch.look import Look
from reconciler.watch.meter import kind_of
from reconciler.watch.revision import Revision
from reconciler.watch.state import Doubt, SandboxState, SandboxStatus, Standing
from reconciler.watch.traffic import Drain, Traffic
from tests import packages
from tests.watch.clock import Clock

TEXT, OPENMETRICS = (
    "text/plain; version=0.0.4; charset=utf-8",
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
)
# What Prometheus 2.42 and 3.5 send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
BOOT = 1_699_990_000.0
SERVER = DrainServer(
    service=("tcp", "10.0.0.1", 80), server=Server(address="10.0.0.2"), before=Server(address="10.0.0.2")
)

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def values(metrics: Metrics, *, of: str = "reconciler_", openmetrics: bool = False) -> Values:
    """Return what a parser of the library reads: (name, labels) → value."""
    parse, accept = (parse_openmetrics, OPENMETRICS) if openmetrics else (parse_text, "")
    families = parse(metrics.expose(accept).body.decode())
    found = [each for family in families for each in family.samples if each.name.startswith(of)]
    read = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in found}
    assert len(read) == len(found)
    return read


def known(*standings: Standing, alarms: int = 0, problems: int = 0) -> Metrics:
    return Metrics(lambda: Snapshot(standings, alarms, problems), os.getpid)


def look(*, full: bool = True, cause: str = "", machine: bool = False) -> Look:
    driver = VmAddress(name="web") if machine else NetnsAddress(name="web")
    return Look(Manifest("web.yaml", "", 0, Sandbox(id="web", driver=driver)), Revision(), cause, full, DEFAULTS)


def standings(clock: Clock) -> list[Standing]:
    found = [
        SandboxStatus(f"web-{number}", "netns web", "web.yaml", state=SandboxState.CONVERGED) for number in range(1, 5)
    ]
    for each in found:
        each.looked, each.valid_until = clock.now, clock.now + 20.0
    fresh, stale, draining, edited = found
    fresh.repairs, fresh.flushes = 1234, 5
    stale.looked, stale.valid_until = clock.now - 21.125, clock.now - 1.125
    stale.fights = ("ip route add default", "ip link set dev eth0 up")
    draining.state = SandboxState.DRAINING
    draining.traffic = Traffic(drains=tuple(Drain("web", "a", 1, 1_700_000_060 + number) for number in range(3)))
    return [*map(Standing, (fresh, stale, draining)), Standing(edited, Doubt(SandboxState.OUTDATED, "bad"))]


@pytest.mark.parametrize("openmetrics", [False, True])
def test_what_is_known_of_each_sandbox(openmetrics: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(10_000.0)
    monkeypatch.setattr(clock_module, "now", clock)
    monkeypatch.setattr(clock_module, "unix", lambda moment: BOOT + moment)
    found = values(known(*standings(clock), alarms=2, problems=3), openmetrics=openmetrics)

    def each(name: str) -> list[float]:
        return [found[f"reconciler_{name}", (("sandbox", f"web-{number}"),)] for number in range(1, 5)]

    assert each("converged") == [1, 0, 1, 0]
    assert each("last_look_timestamp_seconds") == [1700000000, 1699999978.875, 1700000000, 1700000000]
    assert each("stale") == [0, 1, 0, 0]
    assert each("repairs_total") == [1234, 0, 0, 0]
    assert each("fights") == [0, 2, 0, 0]
    assert each("manifest_refused") == [0, 0, 0, 1]
    assert each("draining_servers") == [0, 0, 3, 0]
    assert each("drain_deadline_timestamp_seconds") == [0, 0, 1_700_000_060, 0]
    assert each("guard_flushes_total") == [5, 0, 0, 0]
    assert (found["reconciler_alarms", ()], found["reconciler_manifest_problems", ()]) == (2, 3)
    counts = {state.value: found["reconciler_sandboxes", (("state", state.value),)] for state in SandboxState}
    assert {state: count for state, count in counts.items() if count} == {"converged": 2, "draining": 1, "outdated": 1}
    (info,) = (labels for name, labels in found if name == "reconciler_build_info")
    assert dict(info)["version"] == installed_version()


@pytest.mark.parametrize("state", SandboxState)
def test_only_what_is_as_its_manifest_says_is_converged(state: SandboxState) -> None:
    status = SandboxStatus("web-1", "netns web", "web.yaml", state=state, valid_until=1e12)
    good = state in {SandboxState.CONVERGED, SandboxState.DRAINING}
    assert values(known(Standing(status)))["reconciler_converged", (("sandbox", "web-1"),)] == good


def test_looks_are_counted_by_how_long_they_took() -> None:
    metrics = known()
    metrics.record_look(look(), 0.003, succeeded=True)
    metrics.record_look(look(full=False), 0.3, succeeded=True)
    metrics.record_look(look(full=False, machine=True), 100.0, succeeded=False)
    found = values(metrics)

    def bucket(bound: str, driver: str, kind: str, result: str) -> float:
        labels = (("driver", driver), ("kind", kind), ("le", bound), ("result", result))
        return found["reconciler_look_duration_seconds_bucket", labels]

    assert [bucket(bound, "netns", "full", "ok") for bound in ("0.0025", "0.005", "+Inf")] == [0, 1, 1]
    assert [bucket(bound, "netns", "quick", "ok") for bound in ("0.25", "0.5", "+Inf")] == [0, 1, 1]
    assert [bucket(bound, "vm", "quick", "failed") for bound in ("60.0", "+Inf")] == [0, 1]
    assert sum(value for (name, _), value in found.items() if name == "reconciler_look_duration_seconds_count") == 3


def test_changes_drains_and_errors_are_counted() -> None:
    metrics = known()
    metrics.record_repair(look(cause="manifest"), Result((SERVER, SERVER), 0.02, draining=2))
    failure = Failure(frozenset(), errors.ApplyError("a", "b", (), "c"))
    metrics.record_repair(look(), Result((), 0.02, failure=failure))
    metrics.record_repair(look(), Result((), 0.02))
    found = values(metrics)
    assert found["reconciler_drains_total", ()] == 2
    counts = {
        labels: value for (name, labels), value in found.items() if name == "reconciler_apply_duration_seconds_count"
    }
    assert counts == {(("cause", "manifest"), ("driver", "netns")): 1}
    assert found["reconciler_errors_total", (("kind", "apply"),)] == 1


def test_each_kind_of_error_is_there_before_its_first() -> None:
    found = values(known())
    kinds = {dict(labels)["kind"] for name, labels in found if name == "reconciler_errors_total"}
    assert kinds == {
        *("manifest", "host", "sandbox_gone", "busy", "protocol", "channel", "verify", "apply", "refused"),
        *("not_allowed", "system", "defect"),
    }
    assert {value for (name, _), value in found.items() if name == "reconciler_errors_total"} == {0}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.SandboxGoneError("a"), "sandbox_gone"),
        (errors.NotAllowedError([((), "a")]), "not_allowed"),
        (errors.ManifestError([errors.Problem("a", 1, 1, "", "b")]), "manifest"),
        (QmpError("a", "b", "c"), "host"),
        (OSError(errno.EMFILE, "a"), "system"),
        (KeyError("a"), "defect"),
    ],
)
def test_the_kind_of_an_error(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("text/html, Application/OpenMetrics-Text ; Q=0.1", OPENMETRICS),
        ("application/openmetrics-text;q=0.5, text/plain", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=x", TEXT),
        ("application/openmetrics-text;q=nan", TEXT),
        # The version is not theirs to choose.
        ("application/openmetrics-text;version=1.x", OPENMETRICS),
        ("application/openmetrics-text;version=9\r\n X: y", OPENMETRICS),
    ],
)
def test_the_format_is_what_the_client_prefers(accept: str, kind: str) -> None:
    answer = known().expose(accept)
    assert (answer.status, answer.kind) == (200, kind)
    assert answer.body.endswith(b"# EOF\n") == (kind == OPENMETRICS)


@given(st.text() | st.text("application/openmetrics-text;q=0.1,*"))
def test_any_header_has_an_answer(accept: str) -> None:
    assert known().expose(accept).kind in {TEXT, OPENMETRICS}


@given(st.text(max_size=20))
@example('a"b\\n')
@example("\n\r\x00\x1b[31m\x7f\x85\u2028\u202e")
@example("\udcff")
@example("wéb-日本")
@example('"} 1\nup 1')
def test_any_name_is_a_label_that_a_terminal_only_shows(name: str) -> None:
    metrics = known(Standing(SandboxStatus(name, "netns web", "web.yaml")))
    for accept in ("", OPENMETRICS):
        text = metrics.expose(accept).body.decode()
        assert text.replace("\n", "").isprintable()
    plain, open_ = values(metrics), values(metrics, openmetrics=True)
    names = {dict(labels).get("sandbox") for _, labels in (*plain, *open_)} - {None}
    assert len(names) == 1
    if name.isprintable():
        assert names == {name}
    assert len(plain) == len(values(known(Standing(SandboxStatus("a", "netns web", "web.yaml")))))


def test_counts_are_exact_whatever_threads_count_and_read() -> None:
    metrics, reads = known(), list[Values]()
    failed = errors.HostError("a")

    def work() -> None:
        for _ in range(500):
            metrics.record_error(failed)
            metrics.record_look(look(), 0.001, succeeded=True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        reads.append(values(metrics))
    assert values(metrics)["reconciler_errors_total", (("kind", "host"),)] == 2000
    for found in reads:
        counts = [value for (name, _), value in found.items() if name == "reconciler_look_duration_seconds_bucket"]
        assert counts == sorted(counts)


def test_the_number_of_series_depends_on_sandboxes_alone() -> None:
    metrics = known()
    for number in range(100):
        metrics.record_look(look(machine=bool(number % 2)), number, succeeded=bool(number % 3))
        metrics.record_error(ValueError(str(number)))
        metrics.record_error(OSError(number, str(number)))
        metrics.record_repair(look(cause=("", "start", "manifest")[number % 3]), Result((SERVER,), number))
    assert len(values(metrics)) < 250
    one, two = (Standing(SandboxStatus(name, "netns web", "web.yaml")) for name in "ab")
    # docs/security.md has this number.
    assert len(values(known(one, two))) - len(values(known(one))) == 9


def test_the_page_about_the_watch_has_each_metric_with_its_labels() -> None:
    metrics = known(Standing(SandboxStatus("web-1", "netns web", "web.yaml")))
    metrics.record_look(look(), 1.0, succeeded=True)
    metrics.record_repair(look(), Result((SERVER,), 1.0))
    families = parse_text(metrics.expose("").body.decode())
    # A parser calls the family of a counter by its name without `_total`.
    found = {
        f"{each.name}{'_total' * (each.type == 'counter')}": {*each.samples[0].labels} - {"le"}
        for each in families
        if each.name.startswith("reconciler_")
    }
    page = Path("docs/watch.md").read_text()
    rows = re.findall(r"^\| `(reconciler_[a-z_]+)(?:\{([a-z,]+)\})?` \|", page, re.MULTILINE)
    of_each, of_all = page.split("Those of the whole watcher:")
    assert len(rows) == len(dict(rows))
    said = {name: set(labels.split(",")) - {""} for name, labels in rows}
    said |= {name: {"sandbox"} for name in said if f"`{name}`" in of_each}
    # Those of a process are told of together.
    assert "`reconciler_machines_process_open_fds`" in page
    assert said == {name: each for name, each in found.items() if "_process_" not in name}
    kinds = of_all.partition("| kind of error |")[2].partition("\n\n")[0]
    named = {
        name for cell in re.findall(r"^\| (`.*?`) \|", kinds, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert named == set(meter.KINDS)


def test_the_process_is_measured_as_well() -> None:
    found = values(known(), of="process_")
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"} <= {
        name for name, _ in found
    }


def test_the_library_of_debian_makes_the_same_text(root: None) -> None:
    """The Debian package uses the library of Debian 12, which is older, and calls its OpenMetrics version 0.0.1."""
    program = (
        "import prometheus_client; from tests.watch.test_exposition import Snapshot, look, known, Result, SERVER\n"
        "metrics = known(); metrics.record_look(look(), 1.5, succeeded=True)\n"
        "metrics.record_repair(look(), Result((SERVER,), 0.5, draining=1))\n"
        "print(prometheus_client.__file__)\n"
        "for accept in ('', 'application/openmetrics-text'):\n"
        "    answer = metrics.expose(accept)\n"
        "    lines = [line for line in answer.body.decode().splitlines() if 'process_' not in line]\n"
        "    print(answer.kind.partition(';')[0], *lines, sep='\\n')"
    )
    folder = (
        packages.unpacked("prometheus-client", ["python3-decorator", "python3-prometheus-client"])
        / "usr/lib/python3/dist-packages"
    )
    place, *theirs = _printed(program, folder)
    assert place.startswith(str(folder))
    _, *ours = _printed(program)
    assert theirs == ours


def _printed(program: str, *folders: Path) -> list[str]:
    words = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": ":".join(map(str, (*folders, Path.cwd())))}
    return subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout.splitlines()
