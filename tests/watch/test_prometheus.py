"""What Prometheus and Grafana make of the metrics: a real Prometheus scrapes them, promtool tests the alerts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from reconciler import errors
from reconciler.converge import Result
from reconciler.watch import clock
from reconciler.watch.exposition import Metrics
from reconciler.watch.metrics import Answer, MetricsServer
from reconciler.watch.state import SandboxState, SandboxStatus, Standing
from reconciler.watch.traffic import Drain, Traffic
from tests import packages
from tests.watch.running import until
from tests.watch.test_exposition import SERVER, known, look
from tests.watch.test_metrics_proxy import free_port

ALERTS, TESTS = Path("examples/reconciler.alerts"), Path("tests/watch/alerts.yaml")
DASHBOARD = json.loads(Path("examples/reconciler.dashboard").read_text())
PANELS: list[dict[str, Any]] = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
ALERTED = {rule["alert"]: rule["expr"] for rule in RULES}
# Expressions, with the values of their variables.
SHOWN = [
    target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
    for panel in PANELS
    for target in panel["targets"]
]
# A name that is text in three notations, and one that a terminal would obey.
NAMES = ('wéb "日本"\\', "web\x1b[31m\n")


def statuses() -> list[SandboxStatus]:
    gone, draining = (SandboxStatus(name, "netns web", "web.yaml") for name in NAMES)
    draining.state = SandboxState.DRAINING
    draining.traffic = Traffic(drains=(Drain("web", "a", 1, 1),))
    draining.looked = clock.now() - 1
    return [gone, draining]


def measured(found: list[SandboxStatus]) -> Metrics:
    """Return metrics of sandboxes, with each series that there can be of them."""
    metrics = known(*map(Standing, found), alarms=1)
    for full in (True, False):
        metrics.record_look(look(full=full), 0.5, succeeded=full)
    metrics.record_repair(look(cause="start"), Result((SERVER,), 0.5, draining=1))
    metrics.record_error(errors.ChannelError("a"))
    return metrics


@pytest.fixture(scope="module")
def programs() -> Path:
    """Return the folder of prometheus and promtool."""

    def strip(folder: Path) -> None:
        for each in folder.iterdir():
            if each.name != "usr":
                shutil.rmtree(each)

    return packages.unpacked("prometheus", ["prometheus"], strip) / "usr/bin"


def promtool(programs: Path, *words: str, stdin: bytes = b"") -> tuple[int, str]:
    done = subprocess.run(
        [programs / "promtool", *words], check=False, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, done.stdout.decode()


def test_the_alerts_are_valid_and_fire_when_they_should(root: None, programs: Path) -> None:
    code, said = promtool(programs, "check", "rules", "--lint-fatal", str(ALERTS))
    assert (code, f"SUCCESS: {len(RULES)} rules found" in said) == (0, True), said
    code, said = promtool(programs, "test", "rules", str(TESTS))
    assert (code, "SUCCESS" in said) == (0, True), said


def test_each_alert_is_tested_both_ways() -> None:
    tests = [each for group in yaml.safe_load(TESTS.read_text())["tests"] for each in group["alert_rule_test"]]
    fired = {each["alertname"] for each in tests if each["exp_alerts"]}
    silent = {each["alertname"] for each in tests if not each["exp_alerts"]}
    assert fired == silent == ALERTED.keys()
    assert len(ALERTED) == len(RULES)


def test_rules_and_panels_are_about_what_is_served() -> None:
    text = measured(statuses()).expose("").body.decode()
    series = set(re.findall(r"^(\w+)(?:\{| )", text, re.MULTILINE))
    used = {name for each in (*ALERTED.values(), *SHOWN) for name in re.findall(r"\b(?:reconciler|process)_\w+", each)}
    assert used <= series
    families = set(re.findall(r"^# TYPE (reconciler_\w+)", text, re.MULTILINE))
    # Nothing is served that nobody looks at, but for some of the usual figures of a process.
    unused = {name for name in families if not any(each.startswith(name) for each in used)}
    assert {name for name in unused if "_process_" not in name} == set()


def test_promtool_has_nothing_against_the_text(root: None, programs: Path) -> None:
    assert promtool(programs, "check", "metrics", stdin=measured(statuses()).expose("").body) == (0, "")


def test_grafana_knows_each_field_of_the_dashboard() -> None:
    register_default_plugins()
    read = Dashboard.from_json(DASHBOARD)
    assert list(lost(DASHBOARD, json.loads(JSONEncoder().encode(read)))) == []


def lost(written: Any, read: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of what differs from what was written; what was read has defaults as well."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            yield from lost(value, read.get(key), f"{path}.{key}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for index, value in enumerate(written):
            yield from lost(value, read[index], f"{path}[{index}]")
    elif written != read:
        yield f"{path}: {written!r} is {read!r}"


def test_the_panels_have_places_and_names_of_their_own() -> None:
    everything = DASHBOARD["panels"]
    assert len({each["id"] for each in everything}) == len({each["title"] for each in everything}) == len(everything)
    for one, other in combinations([each["gridPos"] for each in everything], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
    assert all(each["gridPos"]["x"] + each["gridPos"]["w"] <= 24 for each in everything)
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    words = json.dumps(DASHBOARD)
    assert set(re.findall(r"\$\{?([a-z]\w*)", words)) == variables
    for panel in PANELS:
        # Several hosts are told apart, and only the chosen ones are shown.
        assert all("$instance" in target["expr"] for target in panel["targets"]), panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_prometheus_reads_everything_by_either_format(root: None, programs: Path, tmp_path: Path) -> None:
    found, kinds = statuses(), list[str]()
    metrics, status = measured(found), found[0]

    def openmetrics(accept: str) -> Answer:
        # Each counter counts, so that each panel has something to show.
        status.repairs, status.flushes = status.repairs + 1, status.flushes + 1
        metrics.record_error(errors.ApplyError("a", "b", (), "c"))
        answer = metrics.expose(accept)
        kinds.append(answer.kind)
        return answer

    server = MetricsServer("127.0.0.1", 0, {"/metrics": openmetrics, "/text": lambda _: metrics.expose("")})
    port = free_port()
    targets = [{"targets": [f"127.0.0.1:{server.port}"]}]
    scrapes = [
        {"job_name": "reconciler", "static_configs": targets},
        {"job_name": "text", "static_configs": targets, "metrics_path": "/text"},
    ]
    settings = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    config = {"global": settings, "scrape_configs": scrapes, "rule_files": [str(ALERTS.resolve())]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    words = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data", "--log.level=warn"]
    process = subprocess.Popen([programs / "prometheus", *words, f"--web.listen-address=127.0.0.1:{port}"])
    try:
        until(
            lambda: asked(port, "count(up == 1 and on (job) count_over_time(up[5m]) > 2) == 2"), "two scrapes of each"
        )
        assert set(kinds) == {"application/openmetrics-text; version=1.0.0; charset=utf-8"}
        # After a scrape that took too long, a series is gone until the next one.
        for name in ("reconciler_converged", "reconciler_repairs_total", "reconciler_look_duration_seconds_count"):
            for job in ("reconciler", "text"):
                until(lambda series=f'{name}{{job="{job}"}}': len(asked(port, series)) == 2, f"{name} of {job}")  # type: ignore[misc]
        expected = {NAMES[0], "web\\x1b[31m\\n"}
        until(lambda: {each["metric"]["sandbox"] for each in asked(port, "reconciler_converged")} == expected, "names")
        for each in SHOWN:
            until(lambda each=each: asked(port, each), each)  # type: ignore[misc]
    finally:
        process.terminate()
        process.wait(60)
        server.close()


def asked(port: int, expression: str) -> list[dict[str, Any]]:
    """Return what Prometheus answers to an expression; nothing until it is there."""
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}", timeout=60
        ) as answer:
            data = json.load(answer)
    except OSError:
        return []
    assert data["status"] == "success", data
    result: list[dict[str, Any]] = data["data"]["result"]
    return result
