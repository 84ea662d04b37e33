"""Where the language server cannot be installed, the error says what is missing, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.editors import install


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(install, "FOLDER", tmp_path / "editors")
    monkeypatch.setattr(install, "SERVER", tmp_path / "no-server")
    return tmp_path / "editors"


def test_without_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit) as raised:
        install.install()
    assert raised.value.code == "make editors: node and npm missing; install the Debian packages nodejs and npm"


@pytest.mark.skipif(not shutil.which("npm"), reason="`make editors` installs npm")
def test_without_a_registry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("registry", "http://127.0.0.1:9/"), ("cache", str(folder / "cache")), ("fetch_retries", "0")):
        monkeypatch.setenv(f"npm_config_{name}", value)
    with pytest.raises(SystemExit) as raised:
        install.install()
    message = str(raised.value.code)
    assert message.startswith(f"make editors: npm cannot install yaml-language-server into {folder} (")
    assert "connect ECONNREFUSED 127.0.0.1:9" in message
    assert "the npm registry must be reachable, once" in message
