"""The examples as a page: a list of what they show, then their texts."""

from __future__ import annotations

from pathlib import Path

_BEGINNING = """\
# Examples

Manifests can be applied as they are: the commands in their comments make what they need on the host. The tests
do that with each.
"""
_LANGUAGES = {".conf": "nginx", ".service": "ini", ".sh": "sh", ".rules": "text", ".yaml": "yaml", ".alerts": "yaml"}


def page(folder: Path) -> str:
    """Return the page about all files of a folder, as Markdown."""
    files = sorted(folder.iterdir())
    rows = [f"| [{file.name}](#{_anchor(file)}) | {_purpose(file)} |" for file in files]
    texts = [
        f"## {file.name} {{#{_anchor(file)}}}\n\n```{_LANGUAGES.get(file.suffix, 'text')}\n{file.read_text()}```\n"
        for file in files
    ]
    return "\n".join([_BEGINNING, "| file | what it shows |", "| --- | --- |", *rows, "", *texts])


def _anchor(file: Path) -> str:
    return file.name.replace(".", "-").lower()


def _purpose(file: Path) -> str:
    """Return the first comment of a file."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#!")]
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("# ") else ""
