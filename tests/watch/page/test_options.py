"""The options of the page, and that nothing else pays for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from reconciler.cli.main import _parser, main
from reconciler.watch.page.address import PageAddress


def parsed(*words: str) -> PageAddress:
    everything = ("watch", *words, "manifests")
    found = _parser(everything).parse_args(everything).ui
    assert isinstance(found, PageAddress)
    return found


def test_an_address() -> None:
    assert parsed("--ui", "9180") == PageAddress("127.0.0.1", 9180)
    assert parsed("--ui", "box.example:9180") == PageAddress("box.example", 9180)
    assert parsed("--ui", "[2001:db8::1]:9180") == PageAddress("2001:db8::1", 9180)
    assert parsed("--ui", "unix:/run/reconciler/page.sock") == PageAddress(path="/run/reconciler/page.sock")
    assert [str(parsed("--ui", each)) for each in ("9180", "[::1]:0", "unix:/a")] == [
        "127.0.0.1:9180",
        "[::1]:0",
        "unix:/a",
    ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("unix:page.sock", '"unix:page.sock": the path of the socket has to begin with /'),
        ("unix:", '"unix:": the path of the socket has to begin with /'),
        ("x", '"x" is not HOST:PORT or PORT'),
        (":9180", '":9180" is not HOST:PORT or PORT'),
        ("127.0.0.1:65536", '"127.0.0.1:65536" is not HOST:PORT or PORT'),
    ],
)
def test_what_is_none(word: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parsed("--ui", word)
    assert raised.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_token_without_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "--ui-token-file", "token", "manifests"]) == 2
    assert "--ui-token-file is for the page, which --ui HOST:PORT serves" in capsys.readouterr().err


def test_only_a_page_needs_its_server() -> None:
    """Without the library, a watch begins, and `--ui` names what is missing."""
    program = (
        "import json, sys\n"
        "import reconciler.cli.watch\n"
        "loaded = sorted({'asyncio', 'uvicorn', 'h11', 'reconciler.watch.page.server'} & set(sys.modules))\n"
        "sys.modules['uvicorn'] = None\n"
        "try:\n"
        "    import reconciler.watch.page.server\n"
        "except Exception as error:\n"
        "    print(json.dumps([loaded, type(error).__name__, str(error)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded, kind, words = json.loads(done.stdout)
    assert (loaded, kind) == ([], "HostError")
    assert words == (
        "--ui needs the Python package uvicorn, which is missing: install reconciler with its extra `ui`, such as "
        "`pip install '.[ui]'`"
    )
