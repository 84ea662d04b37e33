"""What `watch` makes of its arguments; no watcher runs here."""

from __future__ import annotations

import resource
from collections.abc import Sequence

import pytest

from reconciler.cli import watch
from reconciler.cli.main import main
from reconciler.watch.probation import Confirm
from reconciler.watch.rollout import Pace
from reconciler.watch.settings import Settings
from reconciler.watch.watcher import Options


class _Watcher:
    """Stands in for the real one: it notes what it is given, and ends at once."""

    seen: list[tuple[list[str], Options]]

    def __init__(self, paths: Sequence[str], options: Options) -> None:
        self.seen.append((list(paths), options))

    def run(self) -> None:
        self.seen.append(([], Options(Settings(0, 0))))


@pytest.fixture(autouse=True)
def forms(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The forms and levels in which it was asked to log."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(_Watcher, "seen", [], raising=False)
    monkeypatch.setattr(watch, "Watcher", _Watcher)
    monkeypatch.setattr("reconciler.watch.log.configure", lambda *form: asked.append(form))
    return asked


def given(*words: str) -> tuple[list[str], Options]:
    """Return the paths and options with which these words run a watcher."""
    assert main(["watch", *words]) == 0
    made, ran = _Watcher.seen
    assert ran == ([], Options(Settings(0, 0)))
    return made


def test_what_holds_unless_it_is_said(forms: list[tuple[str, str]]) -> None:
    settings = Settings(look=5.0, full_look=600.0, change=True, guard=True)
    assert given("m", "n.yaml") == (["m", "n.yaml"], Options(settings, Pace(), prune=False, metrics=None, push=True))
    assert forms == [("text", "operation")]


def test_all_that_can_be_said(forms: list[tuple[str, str]]) -> None:
    words = (
        "--mode report --prune --at-once 10% --stop-after-failures 3 --look 0.5s --full-look 1h --no-guard --no-push "
        "--metrics 127.0.0.1:9100 --log json --log-level warning m"
    )
    settings = Settings(look=0.5, full_look=3600.0, change=False, guard=False, confirm=Confirm.CHECKED)
    pace = Pace(percent=10, stop_after=3)
    assert given(*words.split()) == (["m"], Options(settings, pace, prune=True, metrics=("127.0.0.1", 9100)))
    assert forms == [("json", "warning")]


@pytest.mark.parametrize(
    ("words", "confirm", "bake"),
    [
        ("", Confirm.NONE, 0.0),
        ("--at-once 1", Confirm.CHECKED, 0.0),
        ("--confirm", Confirm.ALL, 0.0),
        ("--at-once 1 --confirm", Confirm.ALL, 0.0),
        ("--bake 5min", Confirm.ALL, 300.0),
    ],
)
def test_what_is_put_on_trial(words: str, confirm: Confirm, bake: float) -> None:
    settings = given(*words.split(), "m")[1].settings
    assert (settings.confirm, settings.bake) == (confirm, bake)


def test_it_may_open_as_many_files_as_the_host_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        given("m")
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("words", "pace"),
    [
        (["--at-once", "7"], Pace(number=7)),
        (["--at-once", "100%"], Pace(percent=100)),
        (["--stop-after-failures", "2"], Pace(stop_after=2)),
        (["--at-once", "1", "--stop-after-failures", "0"], Pace(number=1)),
    ],
)
def test_paces(words: list[str], pace: Pace) -> None:
    assert given(*words, "m")[1].pace == pace


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert given("--metrics", text, "m")[1].metrics == address


def test_a_full_look_is_no_more_often_than_a_look() -> None:
    settings = given("--look", "1h", "m")[1].settings
    assert (settings.look, settings.full_look) == (3600.0, 3600.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "apply", "m"], '--mode: "apply" is no choice; expected one of: repair, report'),
        (["--at-once", "0", "m"], 'argument --at-once: "0" is not a number such as 20, or a percentage up to 100%'),
        (
            ["--at-once", "101%", "m"],
            'argument --at-once: "101%" is not a number such as 20, or a percentage up to 100%',
        ),
        (["--stop-after-failures", "some", "m"], 'argument --stop-after-failures: "some" is not a number'),
        (["--stop-after-failures=-1", "m"], 'argument --stop-after-failures: "-1" is not a number'),
        (["--look", "5", "m"], 'argument --look: "5" is not a time such as 90s, 15min, 1h or 2d'),
        (["--full-look", "0s", "m"], 'argument --full-look: "0s" is not a time such as 90s, 15min, 1h or 2d'),
        (["--metrics", "localhost", "m"], 'argument --metrics: "localhost" is not HOST:PORT or PORT'),
        (["--metrics", ":9100", "m"], 'argument --metrics: ":9100" is not HOST:PORT or PORT'),
        (["--metrics", "[]:9100", "m"], 'argument --metrics: "[]:9100" is not HOST:PORT or PORT'),
        (["--metrics", "localhost:", "m"], 'argument --metrics: "localhost:" is not HOST:PORT or PORT'),
        (["--metrics", "localhost:http", "m"], 'argument --metrics: "localhost:http" is not HOST:PORT or PORT'),
        (["--metrics", "localhost:65536", "m"], 'argument --metrics: "localhost:65536" is not HOST:PORT or PORT'),
        (["--log", "xml", "m"], '--log: "xml" is no choice; expected one of: text, json'),
    ],
)
def test_what_it_does_not_take(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["watch", *words])
    out, err = capsys.readouterr()
    assert (raised.value.code, out, _Watcher.seen) == (2, "", [])
    assert err.splitlines()[-1] == f"reconciler watch: error: {said}"


@pytest.mark.parametrize("words", [[], ["--fleet", "https://gate.example", "--mode", "report", "manifests"]])
def test_it_watches_either_files_or_what_a_fleet_wants(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", *words]) == 2
    expected = "reconciler: name either manifests or folders to watch, or the gates of a fleet with --fleet URL…\n"
    assert (capsys.readouterr().err, _Watcher.seen) == (expected, [])


def test_help_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["watch", "--help"])
    assert raised.value.code == 0
    assert "--at-once N|N%" in capsys.readouterr().out
