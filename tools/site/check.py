"""Check a site that was built: every link leads to a file and a place in it, and no page loads anything from elsewhere.

Links to other sites are counted, not followed.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches without being asked: attributes by element, and addresses within style sheets.
_LOADED = {
    "img": ("src", "srcset"),
    "script": ("src",),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src",),
}
_LOADING_RELATIONS = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "modulepreload",
    "manifest",
}
_MERMAID = "//mermaid"
_WORDS = {_MERMAID: "a program that draws mermaid"}
_IN_STYLES = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")]+)")


class _Page(HTMLParser):
    """The links of a page, what it loads, and the places in it that links can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if "mermaid" in given.get("class", "").split():
            # The theme fetches it from another site.
            self.loaded.append(_MERMAID)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and _LOADING_RELATIONS & set(given.get("rel", "").split()):
            self.loaded.append(given["href"])
        self.loaded += [given[name] for name in _LOADED.get(tag, ()) if name in given]
        self.loaded += _IN_STYLES.findall(given.get("style", ""))


def problems(site: Path) -> tuple[list[str], int]:
    """Return what is wrong with a site, and how many links lead to other sites."""
    pages = {file: _Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    found: list[str] = []
    elsewhere = 0
    for file, page in pages.items():
        name = file.relative_to(site)
        loaded = sorted({each for each in page.loaded if _is_elsewhere(each)})
        found += [f"{name} loads {_WORDS.get(each, each)} from elsewhere" for each in loaded]
        for link in page.links + [each for each in page.loaded if not _is_elsewhere(each)]:
            if _is_elsewhere(link):
                elsewhere += 1
            elif reason := _broken(link, file, pages, site):
                found.append(f"{name}: {link}: {reason}")
    for style in sorted(site.rglob("*.css")):
        loaded = _IN_STYLES.findall(style.read_text(encoding="utf-8"))
        found += [f"{style.relative_to(site)} loads {each} from elsewhere" for each in loaded]
    return found, elsewhere


def _is_elsewhere(link: str) -> bool:
    parts = urlsplit(link)
    return bool(parts.netloc) or parts.scheme in {"http", "https", "mailto"}


def _broken(link: str, file: Path, pages: dict[Path, _Page], site: Path) -> str:
    """Return why a link leads nowhere, "" if it leads somewhere."""
    parts = urlsplit(link)
    if parts.scheme:
        return "" if parts.scheme == "data" else "not a link to a file"
    root = site if parts.path.startswith("/") else file.parent
    target = (root / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site) or not target.is_file():
        return "no such file"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
        return "no such place in that page"
    return ""


def main(folder: str) -> int:
    """Check the site in a folder; return an exit code."""
    site = Path(folder).resolve()
    found, elsewhere = problems(site)
    for each in found:
        print(each, file=sys.stderr)
    count = len(list(site.rglob("*.html")))
    if not count:
        print(f"{folder} has no page", file=sys.stderr)
    print(f"{count} pages, {len(found)} problems; {elsewhere} links to other sites were not followed")
    return int(bool(found) or not count)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
