"""What README.md shows works as shown. `make fresh` runs all of it on a fresh Debian."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.blocks import ROOT
from tests.docs.commands import commands, differences, script
from tests.host import Host
from tests.watch.running import until

README = ROOT / "README.md"
# What takes minutes or needs packages is left to `make fresh`: nothing else may be left out.
INSTALLING = re.compile(r"^(make venv|make demo|pipx install|python3 -m venv)", re.MULTILINE)


def test_the_commands_of_readme_do_what_it_shows(host: Host, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "run").mkdir()
    blocks = [each for each in commands(README) if not INSTALLING.search(each.text)]
    assert len(blocks) == len(commands(README)) - 4
    done = host.run("bash", "-c", script(blocks, tmp_path / "run"), "bash", str(tmp_path / "run"), folder=tmp_path)
    printed = "".join(file.read_text() for file in sorted((tmp_path / "run").glob("*.out")))
    assert done.returncode == 0, done.stdout + printed
    assert differences(blocks, tmp_path / "run") == []
    assert "warning" not in printed
    assert sorted(each.name for each in tmp_path.iterdir()) == ["examples", "run"]
    assert host.output("ip", "-brief", "link").split()[0] == "lo"
    # The kernel removes what is in a deleted namespace, and with it the other end on the host, a moment later.
    until(lambda: "box" not in host.output("ip", "-brief", "link") + host.output("ip", "netns"))


def test_the_diff_shown_is_that_of_the_manifest_shown() -> None:
    text = README.read_text(encoding="utf-8")
    (manifest,) = re.findall(
        r"^```yaml\n(.*?)^```\n\n```sh\nreconciler diff --observed", text, re.MULTILINE | re.DOTALL
    )
    assert (ROOT / "examples" / "web-1.yaml").read_text().endswith(manifest)
    (block,) = [each for each in commands(README) if "--observed" in each.text]
    # The test above runs it: nothing may be left open in what it shows.
    assert "…" not in block.output
    assert block.text.split()[:5] == ["reconciler", "diff", "--observed", "examples/web-1.shown", "examples/web-1.yaml"]
