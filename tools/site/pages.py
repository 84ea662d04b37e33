"""A hook of MkDocs: the pages that are made when the site is built, and links that lead out of docs/."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tools.site import commands, examples, fields  # noqa: E402

# Pages that are files of the repository's root, and folders whose files are part of the site as they are.
_ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
_FOLDERS = ("examples", "schemas")
_LINK = re.compile(r"\[([^\[\]]*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ has."""
    made = {name: _moved((ROOT / name).read_text(encoding="utf-8"), "", name) for name in _ROOT_PAGES}
    made["reference/fields.md"] = fields.page(ROOT / "schemas" / "reconciler-v1.schema.json", fields.MANIFEST)
    made["reference/policy.md"] = fields.page(ROOT / "schemas" / "reconciler-policy-v1.schema.json", fields.POLICY)
    made["reference/commands.md"] = commands.page()
    made["examples.md"] = examples.page(ROOT / "examples")
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for folder in _FOLDERS:
        for file in sorted((ROOT / folder).iterdir()):
            files.append(File.generated(config, f"{folder}/{file.name}", content=file.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that lead out of docs/ lead to where the site has that file."""
    del config, files
    return markdown if page.file.generated_by else _moved(markdown, "docs", page.file.src_uri)


def _moved(markdown: str, folder: str, page: str) -> str:
    """Change the links of a page, given by its path below a folder of the repository.

    A link to a file that the site does not have, such as one of the code, becomes its text.
    """
    here = posixpath.dirname(posixpath.join(folder, page))

    def moved(match: re.Match[str]) -> str:
        text, link, anchor = match.groups()
        target = posixpath.normpath(posixpath.join(here, link))
        if target in _FOLDERS:
            target = f"{target}.md"
        elif not target.startswith(("docs/", *(f"{name}/" for name in _FOLDERS))) and target not in _ROOT_PAGES:
            return text
        # The files of docs/ are at the root of the site.
        within = posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(page) or ".")
        return f"[{text}]({within}{anchor or ''})"

    return _LINK.sub(moved, markdown)
