from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from reconciler.cli.main import main
from reconciler.manifest.load import load
from reconciler.model.sandbox import Observed
from reconciler.preview import compare

HEAD = "apiVersion: reconciler/v1\nsandbox: {id}\ndriver: {{netns: {{name: {id}}}}}\n"
ROUTES = "routes:\n  - {{dest: 10.8.0.0/16, gateway: 192.0.2.1, device: eth0{more}}}\n"


def manifest(id_: str, routes: str | None = "", *, more: str = "") -> str:
    """A manifest with one route, with none (`routes=None`: the section is absent), or with an empty section."""
    sections = {None: "", "": ROUTES.format(more=more), "none": "routes: []\n"}
    return HEAD.format(id=id_) + sections[routes]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


Output = pytest.CaptureFixture[str]


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


GATEWAY_CHANGE = "ip route replace 10.8.0.0/16 via 192.0.2.1 dev eth0 mtu 1400 proto 200"


@pytest.fixture
def changed(folder: Path) -> Path:
    """A manifest that differs from what is observed in the MTU of a route."""
    write(folder, web=manifest("web", more=", mtu: 1400"), saved=manifest("web"))
    return folder


def fingerprint_of_web() -> str:
    (web,), (saved,) = load(["web.yaml"]), load(["saved.yaml"])
    return compare(web.sandbox, Observed(sandbox=saved.sandbox)).fingerprint


@pytest.mark.usefixtures("changed")
def test_a_difference_is_printed_and_exits_with_1(capsys: Output) -> None:
    assert main(["diff", "--observed", "saved.yaml", "web.yaml"]) == 1
    assert capsys.readouterr() == (
        (
            "web · netns web · web.yaml\n"
            f"  ~ {GATEWAY_CHANGE}      # was 10.8.0.0/16 via 192.0.2.1 dev eth0\n"
            "\n"
            f"1 sandbox: 0 to add, 1 to change, 0 to delete. Fingerprint {fingerprint_of_web()}\n"
        ),
        "",
    )


@pytest.mark.usefixtures("changed")
def test_json_is_for_programs(capsys: Output) -> None:
    assert main(["diff", "-o", "json", "--observed", "saved.yaml", "web.yaml"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "{\n"
        '  "sandboxes": [\n'
        "    {\n"
        '      "sandbox": "web",\n'
        '      "driver": "netns web",\n'
        '      "file": "web.yaml",\n'
        f'      "fingerprint": "{fingerprint_of_web()}",\n'
        '      "draining": 0,\n'
        '      "operations": [\n'
        "        {\n"
        '          "action": "change",\n'
        '          "operation": "ReplaceRoute",\n'
        f'          "command": "{GATEWAY_CHANGE}",\n'
        '          "comment": "was 10.8.0.0/16 via 192.0.2.1 dev eth0"\n'
        "        }\n"
        "      ]\n"
        "    }\n"
        "  ],\n"
        f'  "fingerprint": "{fingerprint_of_web()}",\n'
        '  "errors": []\n'
        "}\n"
    )


@pytest.mark.usefixtures("changed")
def test_yaml_says_the_same_as_json(capsys: Output) -> None:
    assert main(["diff", "-o", "json", "--observed", "saved.yaml", "web.yaml"]) == 1
    as_json = json.loads(capsys.readouterr().out)
    assert main(["diff", "-o", "yaml", "--observed", "saved.yaml", "web.yaml"]) == 1
    assert yaml.safe_load(capsys.readouterr().out) == as_json


@pytest.mark.usefixtures("changed")
def test_a_script_needs_the_sandbox_itself(capsys: Output) -> None:
    assert main(["diff", "-o", "shell", "--observed", "saved.yaml", "web.yaml"]) == 2
    assert capsys.readouterr() == (
        "",
        "reconciler: -o shell needs the sandbox itself: a saved state does not contain the devices of this host\n",
    )


@pytest.mark.parametrize("output", ["text", "json", "yaml"])
def test_in_sync_exits_with_0(folder: Path, capsys: Output, output: str) -> None:
    write(folder, web=manifest("web"), saved=manifest("web"))
    assert main(["diff", "-o", output, "--observed", "saved.yaml", "web.yaml"]) == 0
    assert capsys.readouterr().err == ""


def test_a_long_run_is_printed_in_full_if_asked_for(folder: Path, capsys: Output) -> None:
    routes = "".join(f"  - {{dest: 10.{number}.0.0/16, type: blackhole}}\n" for number in range(7))
    write(folder, web=f"{manifest('web', None)}routes:\n{routes}", saved=manifest("web", "none"))
    assert main(["diff", "--observed", "saved.yaml", "web.yaml"]) == 1
    assert "  + … 4 more `ip route add` (-v prints them)" in capsys.readouterr().out.splitlines()
    assert main(["diff", "-v", "--observed", "saved.yaml", "web.yaml"]) == 1
    assert capsys.readouterr().out.splitlines()[1:8] == [
        f"  + ip route add blackhole 10.{number}.0.0/16 proto 200" for number in range(7)
    ]


def test_several_sandboxes_are_told_apart_and_counted_together(folder: Path, capsys: Output) -> None:
    write(
        folder,
        a=manifest("a", more=", mtu: 1400"),
        b=manifest("b"),
        c=manifest("c", "none"),
        saved="---\n".join(manifest(id_) for id_ in "abc"),
    )
    assert main(["diff", "--observed", "saved.yaml", "a.yaml", "b.yaml", "c.yaml"]) == 1
    out, err = capsys.readouterr()
    text, _, print_ = out.partition(" Fingerprint ")
    assert (text, err) == (
        (
            "a · netns a · a.yaml\n"
            f"  ~ {GATEWAY_CHANGE}      # was 10.8.0.0/16 via 192.0.2.1 dev eth0\n"
            "b · netns b · b.yaml: in sync\n"
            "c · netns c · c.yaml\n"
            "  - ip route del 10.8.0.0/16 via 192.0.2.1 dev eth0 proto 200\n"
            "\n"
            "3 sandboxes: 0 to add, 1 to change, 1 to delete."
        ),
        "",
    )
    assert print_.endswith("\n")
    assert main(["diff", "--observed", "saved.yaml", "c.yaml", "b.yaml", "a.yaml"]) == 1
    assert capsys.readouterr().out.endswith(f" Fingerprint {print_}")


def test_a_sandbox_that_is_not_in_the_saved_state_does_not_hide_the_others(changed: Path, capsys: Output) -> None:
    write(changed, other=manifest("other"))
    assert main(["diff", "--observed", "saved.yaml", "other.yaml", "web.yaml"]) == 2
    out, err = capsys.readouterr()
    assert err == "other: the saved state does not contain this sandbox; expected one of: web\n"
    assert out.startswith("web · netns web · web.yaml\n")
    assert out.splitlines()[-1].startswith("1 sandbox: ")


def test_without_any_sandbox_that_could_be_read_nothing_is_printed(folder: Path, capsys: Output) -> None:
    write(folder, web=manifest("web"), saved=manifest("other"))
    assert main(["diff", "--observed", "saved.yaml", "web.yaml"]) == 2
    assert capsys.readouterr() == ("", "web: the saved state does not contain this sandbox; expected one of: other\n")


def test_a_saved_state_is_checked_like_a_manifest(folder: Path, capsys: Output) -> None:
    write(folder, web=manifest("web"), saved=manifest("web").replace("10.8.0.0/16", "10.8.0.1/16"))
    assert main(["diff", "--observed", "saved.yaml", "web.yaml"]) == 2
    assert capsys.readouterr() == (
        "",
        (
            "saved.yaml:5:12: routes[0].dest: 10.8.0.1/16 has host bits set; the network is 10.8.0.0/16\n"
            "    5 |   - {dest: 10.8.0.1/16, gateway: 192.0.2.1, device: eth0}\n"
            "      |            ^^^^^^^^^^^\n"
            "1 problem in 1 file.\n"
        ),
    )


def test_a_saved_state_that_is_missing_is_an_error(folder: Path, capsys: Output) -> None:
    write(folder, web=manifest("web"))
    assert main(["diff", "--observed", "saved.yaml", "web.yaml"]) == 2
    assert capsys.readouterr() == ("", "saved.yaml: No such file or directory\n1 problem in 1 file.\n")


def test_a_namespace_that_does_not_exist_is_an_error(folder: Path, capsys: Output) -> None:
    write(folder, web=manifest("no-such-namespace"))
    assert main(["diff", "web.yaml"]) == 2
    place = "no-such-namespace: web.yaml:3:9: driver: netns no-such-namespace"
    gone = f"{place} does not exist (/run/netns/no-such-namespace); `ip netns add no-such-namespace` makes it\n"
    assert capsys.readouterr() == ("", gone)


def test_colour_is_for_terminals(changed: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    del changed
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["diff", "--observed", "saved.yaml", "web.yaml"]) == 1
    assert f"\x1b[33m  ~ {GATEWAY_CHANGE}\x1b[0m" in capsys.readouterr().out
    assert main(["diff", "--no-color", "--observed", "saved.yaml", "web.yaml"]) == 1
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["diff", "--observed", "saved.yaml", "web.yaml"]) == 1
    assert "\x1b" not in capsys.readouterr().out
