"""The site: what is made when it is built, and the check of its links. `make docs` builds all of it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli.main import COMMANDS, main
from reconciler.manifest.policy import read
from tests.docs.blocks import ROOT, blocks, pages
from tests.fields import names
from tools.site import check, commands, examples, fields

MANIFEST = ROOT / "schemas" / "reconciler-v1.schema.json"


def test_every_field_is_in_the_reference() -> None:
    page = fields.page(MANIFEST, fields.MANIFEST)
    listed = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    assert names(json.loads(MANIFEST.read_text())) <= listed
    assert "net.ipv4.ip_forward" in listed
    assert "| `mtu` | integer from 46 to 9600 |  | `1500` | an MTU from 46 to 9600 bytes |" in page
    assert "| `id` | integer from 1 to 4094 | needed | `100` | a VLAN ID from 1 to 4094 |" in page
    assert "| `weight` | integer from 0 to 65535 | `1` | `100` |" in page
    policy = fields.page(ROOT / "schemas" / "reconciler-policy-v1.schema.json", fields.POLICY)
    assert {"drivers", "physicalDevices", "processes"} <= set(re.findall(r"^\| `([^`]+)` \|", policy, re.MULTILINE))


def test_every_command_and_action_is_in_the_reference() -> None:
    before = dict(os.environ)
    page = commands.page()
    assert dict(os.environ) == before
    listed = re.findall(r"^## reconciler (\S+)$", page, re.MULTILINE)
    assert listed == list(COMMANDS)
    assert set(re.findall(r"^### reconciler sandbox (\S+)$", page, re.MULTILINE)) == {"start", "list", "exec", "stop"}
    assert "  --allow-delete" in page.partition("## reconciler apply\n")[2].partition("\n## ")[0]


def test_every_example_is_listed_with_what_it_shows() -> None:
    page = examples.page(ROOT / "examples")
    rows = dict(re.findall(r"^\| \[([^]]+)\]\(#[^)]+\) \| (.*) \|$", page, re.MULTILINE))
    assert sorted(rows) == sorted(file.name for file in (ROOT / "examples").iterdir())
    assert rows["01-namespace.yaml"] == "A network namespace with one NIC: an address and a default route."


def test_the_site_has_each_page() -> None:
    class Loader(yaml.SafeLoader):
        """Reads what MkDocs calls functions by."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *read: read[1])
    configuration: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    listed = re.findall(r"[\w/-]+\.md", str(configuration["nav"]))
    made = {"examples.md", "reference/fields.md", "reference/policy.md", "reference/commands.md", "CHANGELOG.md"}
    existing = {str(page.relative_to(ROOT)).removeprefix("docs/") for page in pages()}
    assert sorted(listed) == sorted(existing | made)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    """As those who read the pages in the repository follow it; the site's own links are checked by `make docs`."""
    text = re.sub(r"^( *)(```+).*?^\1\2$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as hosts of repositories and our site make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_said_to_be_tested_elsewhere_is(page: Path) -> None:
    reasons = [block.reason for block in blocks(page.read_text(encoding="utf-8"))]
    files = [file for reason in reasons for file in re.findall(r"tests/[\w/.]+\w", reason)]
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_policy_shown_is_one(tmp_path: Path) -> None:
    shown = [block.text for page in pages() for block in blocks(page.read_text(encoding="utf-8"))]
    policies = [text for text in shown if "reconciler-policy-v1" in text]
    assert policies
    for number, text in enumerate(policies):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        assert read(str(file), []).drivers == ("netns", "vm")


HEAD = "apiVersion: reconciler/v1\nsandbox: shown\ndriver: {netns: {name: shown}}\n"
NIC = (
    "interfaces: [{name: eth-test, device: tap-test, hwAddr: 02:00:00:00:00:01, mtu: 68, addresses: [172.16.0.2/16]}]\n"
)


def test_manifests_shown_and_parts_of_them_are_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [
        block for page in pages() for block in blocks(page.read_text(encoding="utf-8")) if block.language == "yaml"
    ]
    wholes = [block.text for block in shown if re.search(r"^apiVersion: reconciler/", block.text, re.MULTILINE)]
    sections = re.compile(r"(?:interfaces|ipvs|neighbours|routes|rules|sysctls):")
    parts = [
        HEAD + ("" if "interfaces:" in each.text else NIC) + each.text for each in shown if sections.match(each.text)
    ]
    assert min(len(wholes), len(parts)) > 1
    for text in (*wholes, *parts):
        file = tmp_path / "shown.yaml"
        file.write_text(text)
        assert main(["validate", str(file)]) == 0, (text, capsys.readouterr())


def test_the_page_about_alerts_has_each_of_them() -> None:
    groups = yaml.safe_load((ROOT / "examples" / "reconciler.alerts").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    assert re.findall(r"^\| (Reconciler\w+) \|", page, re.MULTILINE) == [rule["alert"] for rule in rules]


def site(folder: Path, **files: str) -> Path:
    """Write pages without a head; return their folder."""
    for name, text in files.items():
        (folder / f"{name}.html").write_text(f"<html><body>{text}</body></html>")
    return folder


def test_a_site_without_broken_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(
        tmp_path,
        a='<a href="b.html#c">b</a> <a href="https://example.org">e</a>',
        b='<h2 id="c">c</h2><a href="#c">c</a>',
    )
    assert check.main(str(tmp_path)) == 0
    assert capsys.readouterr().out == "2 pages, 0 problems; 1 links to other sites were not followed\n"
    assert check.main(str(tmp_path / "nowhere")) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<a href="b.html">b</a>', "a.html: b.html: no such file"),
        ('<a href="#b">b</a>', "a.html: #b: no such place in that page"),
        ('<a href="../b.html">b</a>', "a.html: ../b.html: no such file"),
        ('<img src="b.svg">', "a.html: b.svg: no such file"),
        ('<img src="https://example.org/b.svg">', "a.html loads https://example.org/b.svg from elsewhere"),
        ('<script src="//example.org/b.js"></script>', "a.html loads //example.org/b.js from elsewhere"),
        (
            '<link rel="stylesheet" href="https://example.org/b.css">',
            "a.html loads https://example.org/b.css from elsewhere",
        ),
        (
            '<p style="background: url(https://example.org/b.png)">',
            "a.html loads https://example.org/b.png from elsewhere",
        ),
        ('<pre class="mermaid">a --> b</pre>', "a.html loads a program that draws mermaid from elsewhere"),
    ],
)
def test_what_is_wrong_in_a_site(tmp_path: Path, text: str, problem: str) -> None:
    assert check.problems(site(tmp_path, a=text))[0] == [problem]
