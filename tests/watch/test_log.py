"""An event is a line, whatever is said in it, and can be read back."""

from __future__ import annotations

import json
import logging
import re
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.watch import log

Output = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("restored_log")


def text(capsys: Output) -> str:
    """Return the line that was written, without its time."""
    out, err = capsys.readouterr()
    assert out == ""
    match = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d (.*)\n", err)
    assert match, err
    return match[1]


def data(capsys: Output) -> dict[str, object]:
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    found: dict[str, object] = json.loads(err)
    assert isinstance(found.pop("time"), float)
    return found


def test_a_line_for_people(capsys: Output) -> None:
    log.configure("text")
    log.emit("repaired", sandbox="web-1", operations=2, seconds=0.12345, first='ip route add "a"', pruned=False)
    assert text(capsys) == (
        r'info repaired sandbox=web-1 operations=2 seconds=0.123 first="ip route add \"a\"" pruned=False'
    )


def test_a_line_for_machines(capsys: Output) -> None:
    log.configure("json")
    log.emit("repaired", level=logging.WARNING, sandbox="wéb", operations=2, seconds=0.5, pruned=False, each=["a", "b"])
    assert data(capsys) == {
        "level": "warning",
        "event": "repaired",
        "sandbox": "wéb",
        "operations": 2,
        "seconds": 0.5,
        "pruned": False,
        "each": ["a", "b"],
    }


@pytest.mark.parametrize("form", log.FORMS)
def test_what_says_nothing_is_left_out_and_0_says_something(form: str, capsys: Output) -> None:
    log.configure(form)
    log.emit("applied", revision="", file=None, fights=(), operations=0, level=logging.ERROR)
    if form == "text":
        assert text(capsys) == "error applied operations=0"
    else:
        assert data(capsys) == {"level": "error", "event": "applied", "operations": 0}


def test_a_percent_sign_is_no_format(capsys: Output) -> None:
    log.configure("text")
    log.emit("alarm", reason="more than 30 % of %s")
    assert text(capsys) == 'info alarm reason="more than 30 % of %s"'


@pytest.mark.parametrize("form", log.FORMS)
def test_a_traceback_is_in_its_line(form: str, capsys: Output) -> None:
    log.configure(form)
    try:
        int("one\ntwo")
    except ValueError:
        logging.getLogger("reconciler.watch.worker").exception("defect")
    if form == "text":
        level, event, field = text(capsys).split(" ", 2)
        said, traceback = f"{level} {event}", json.loads(field.removeprefix("traceback="))
    else:
        found = data(capsys)
        said, traceback = f"{found['level']} {found['event']}", str(found["traceback"])
    assert said == "error defect"
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("\nValueError: invalid literal for int() with base 10: 'one\\ntwo'")


def test_a_thread_that_ends_by_an_error_says_so_in_a_line(capsys: Output) -> None:
    log.configure("json")
    thread = threading.Thread(target=lambda: int("one"), name="web-1")
    thread.start()
    thread.join()
    found = data(capsys)
    assert (found["level"], found["event"], found["thread"]) == ("error", "defect", "web-1")
    assert str(found["traceback"]).endswith("ValueError: invalid literal for int() with base 10: 'one'")


@pytest.mark.parametrize("form", log.FORMS)
def test_an_event_is_said_once_and_on_no_other_logger(
    form: str, capsys: Output, caplog: pytest.LogCaptureFixture
) -> None:
    log.configure(form)
    log.configure(form)
    log.emit("watching")
    logging.getLogger("reconciler.watch.manifests").debug("too small a thing")
    assert capsys.readouterr().err.count("watching") == 1
    assert caplog.records == []


@pytest.mark.parametrize("form", log.FORMS)
def test_a_warning_of_another_module_is_a_line_as_well(form: str, capsys: Output) -> None:
    log.configure(form)
    logging.getLogger("reconciler.watch.folders").warning("%s is on nfs4", "/srv/a")
    if form == "text":
        assert text(capsys) == "warning /srv/a is on nfs4"
    else:
        assert data(capsys) == {"level": "warning", "event": "/srv/a is on nfs4"}


def test_an_event_of_several_lines_is_one(capsys: Output) -> None:
    log.configure("text")
    logging.getLogger("reconciler.watch.folders").warning("%s is on nfs4", "/srv/a\nb")
    assert capsys.readouterr().err.count("\n") == 1


def record(event: str, fields: dict[str, object]) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": event, "levelno": logging.INFO, "levelname": "INFO"})
    made.fields = fields
    return made


@settings(deadline=None)
@given(value=st.text(max_size=20))
@example("a\nb")
@example("a\x85b")
@example("a\u2028b")
@example("\x9b31m")
@example("\x7f")
@example("a=b")
@example("")
@example('"')
def test_any_text_is_one_line_that_a_terminal_only_shows(value: str) -> None:
    line = log._Text().format(record("failed", {"reason": value}))
    shown = line.partition(" reason=")[2]
    assert line.isprintable()
    assert (json.loads(shown) if shown.startswith('"') else shown) == value


_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(deadline=None)
@given(fields=st.dictionaries(st.sampled_from(["sandbox", "reason", "file"]), _VALUES | st.lists(_VALUES, max_size=3)))
def test_any_fields_are_read_back_by_machines(fields: dict[str, object]) -> None:
    line = log._Json().format(record("failed", fields))
    found = json.loads(line)
    assert (found.pop("event"), found.pop("level"), "\n" in line) == ("failed", "info", False)
    del found["time"]
    assert found == fields
