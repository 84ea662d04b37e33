"""The page in a real browser: what it shows, how it is used, and what it never does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from reconciler.operations.listing import PlanLine
from reconciler.watch import clock
from reconciler.watch.outstanding import Outstanding
from reconciler.watch.page.server import PageServer
from reconciler.watch.state import SandboxState
from tests.browser import Browser, Page
from tests.watch.page.conftest import Serve, Watched
from tests.watch.running import until

# Names of elements that only markup in a text could have made.
HOSTILE = (
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">\n"
    "\x00\x1b[2J\u202egpj.exe\u2066 \udcff &lt;b&gt; ' \" `\u2028"
)
SHOWN = (
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">\\n"
    "\\x00\\x1b[2J\\u202egpj.exe\\u2066 \\udcff &lt;b&gt; ' \" `\\u2028"
)
Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, serve: Serve) -> Iterator[Open]:
    """Open pages of one server; at the end, none has complained, or asked another host for anything."""
    pages: list[Page] = []
    servers: list[PageServer] = []

    def start(fragment: str = "", **options: object) -> Page:
        servers[:] = servers or [serve()]
        pages.append(browser.open(f"{servers[0].url}{fragment}", **options))  # type: ignore[arg-type]
        pages[-1].until("document.getElementById('connection').textContent === 'Live'")
        return pages[-1]

    yield start
    for each in pages:
        assert each.complaints == []
        assert all(url.startswith(servers[0].url) for url in each.requests), each.requests
        each.close()


def column(page: Page, number: int) -> list[str]:
    return page.texts(f"#rows tr:not([hidden]) td:nth-child({number})")


def names(page: Page) -> list[str]:
    return column(page, 1)


def test_it_shows_what_is_known_and_what_changes(watched: Watched, opened: Open) -> None:
    watched.add("web-1", detail="drift repaired")
    watched.add("db-1", SandboxState.WAITING, looked=0.0)
    watched.add("old", SandboxState.CONVERGED, valid_until=clock.now() - 1, looked=clock.now() - 700)
    watched.about["alarms"] = ["/m does not exist"]
    page = opened()
    assert names(page) == ["db-1", "old", "web-1"]
    assert column(page, 2) == ["waiting", "converged?", "converged"]
    assert [column(page, 3)[0], column(page, 3)[1]] == ["-", "11 min ago"]
    assert column(page, 7) == ["", "", "drift repaired"]
    assert page.texts("#notices li") == ["/m does not exist"]
    assert page.value("document.title").startswith("(3) reconciler")
    watched.standings["web-1"].status.set_state(SandboxState.FIGHTING, "another program")
    del watched.standings["old"]
    watched.add("web-2")
    watched.about = watched.about | {"alarms": [], "problems": ["x.yaml:1: broken"]}
    # All of it is one change, or two.
    expected = ["db-1", "web-1", "web-2"], ["waiting", "fighting", "converged"], ["x.yaml:1: broken"]
    until(lambda: (names(page), column(page, 2), page.texts("#notices li")) == expected, f"{expected}")
    assert page.text("#news") == "web-1 is fighting"


def test_a_filter_and_a_search(watched: Watched, opened: Open) -> None:
    watched.add("web-1")
    watched.add("web-2", SandboxState.FAILED, detail="no device TAP-7")
    watched.add("db-1", SandboxState.PAUSED)
    page = opened()
    assert page.texts("#states button") == ["all 3", "not well 1", "converged 1", "failed 1", "paused 1"]
    page.value("document.querySelector('[value=paused]').click()")
    assert (names(page), page.text("#count")) == (["db-1"], "1 of 3")
    page.value("document.querySelector('[value=\"not well\"]').click()")
    assert names(page) == ["web-2"]
    page.value("document.querySelector('[value=\"\"]').click()")
    page.press("/")
    page.type("tap-7 web")
    assert names(page) == ["web-2"]
    page.type("nothing")
    assert (names(page), page.text("#none")) == ([], "No sandbox matches.")
    page.press("Escape")
    assert names(page) == ["db-1", "web-1", "web-2"]


def test_the_keyboard_is_enough(watched: Watched, opened: Open) -> None:
    for number in range(40):
        watched.add(f"web-{number:02}")
    page = opened()
    focused = "document.activeElement.textContent"
    page.press("Tab")
    assert page.value(focused) == "Skip to the sandboxes"
    page.press("Enter")
    assert page.value(focused) == "web-00"
    page.press("ArrowDown")
    page.press("PageDown")
    assert page.value(focused) == "web-16"
    assert page.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("End")
    assert page.value(focused) == "web-39"
    page.press("Enter")
    page.until("location.hash === '#web-39' && document.activeElement.id === 'detail-name'")
    page.press("Escape")
    page.until("location.hash === '' && document.activeElement.textContent === 'web-39'")
    # One stop of the Tab key, however many rows there are.
    assert page.texts('#rows [tabindex="0"]') == ["web-39"]


def test_one_sandbox_and_what_differs(watched: Watched, opened: Open) -> None:
    lines = (PlanLine("+", "  + ip route add 10.8.0.0/16", "      # was 10.9.0.0/16"), PlanLine("", "    no device"))
    status = watched.add("web-1", SandboxState.FAILED, outstanding=Outstanding(clock.now(), lines, 3))
    page = opened("#web-1")
    page.until("!document.getElementById('commands').hidden")
    assert page.text("#commands") == (
        "  + ip route add 10.8.0.0/16      # was 10.9.0.0/16\n    no device\n  … and 3 more"
    )
    assert page.text("#differs").startswith("Still to do after the last look, at ")
    # What is the same stays, so that it can be read and selected.
    page.value("window.kept = document.querySelector('#commands span'); 0")
    status.repairs = 7
    page.until("[...document.querySelectorAll('dd')].some(each => each.textContent === '7')")
    assert page.value("window.kept.isConnected")
    status.outstanding = Outstanding(clock.now())
    status.set_state(SandboxState.CONVERGED)
    page.until("document.getElementById('differs').textContent.startsWith('Nothing to do after')")
    status.outstanding = None
    status.set_state(SandboxState.PAUSED, "maintenance")
    page.until("document.getElementById('differs').textContent.includes('while it is paused')")
    assert page.value("document.getElementById('commands').hidden")
    del watched.standings["web-1"]
    page.until("document.getElementById('differs').textContent.includes('knows no sandbox of this name')")
    assert [each for each in page.complaints if "404" not in each] == []
    page.complaints.clear()


def test_what_a_guest_says_is_text_and_nothing_else(watched: Watched, opened: Open) -> None:
    status = watched.add("web-1", SandboxState.FAILED, detail=HOSTILE, driver=HOSTILE, fights=(HOSTILE,))
    status.outstanding = Outstanding(clock.now(), (PlanLine("+", HOSTILE, HOSTILE),))
    watched.add("web-2", detail="x" * 100_000)
    watched.about |= {"alarms": [HOSTILE], "problems": [HOSTILE], "polling": HOSTILE}
    page = opened("#web-1")
    page.until("!document.getElementById('commands').hidden")
    assert column(page, 4) == [SHOWN, "netns web-2"]
    assert column(page, 7) == [SHOWN, f"{'x' * 4000}… (100,000 characters)"]
    assert page.texts("#notices li") == [SHOWN, SHOWN]
    assert page.text("#commands") == f"{SHOWN}{SHOWN}\n"
    assert page.texts("dd")[-1] == SHOWN
    assert page.value("document.querySelectorAll('script').length") == 1
    assert page.value("document.querySelectorAll('img').length") == 0
    assert "owned" not in page.value("document.title")


@pytest.mark.parametrize("fragment", ["#%", "#%3Cscript%3E", "#web-1/../../events", "#__proto__", "#rows"])
def test_a_fragment_that_is_no_sandbox(fragment: str, watched: Watched, opened: Open) -> None:
    watched.add("web-1")
    page = opened(fragment)
    if fragment != "#%":
        page.until("document.getElementById('differs').textContent.includes('knows no sandbox of this name')")
        # The browser reports each 404.
        assert len(page.complaints) == 1
        page.complaints.clear()
    assert names(page) == ["web-1"]


def test_when_nothing_is_heard_nothing_is_known(watched: Watched, browser: Browser, serve: Serve) -> None:
    watched.add("web-1")
    server = serve()
    page = browser.open(server.url)
    page.until("document.getElementById('connection').textContent === 'Live'")
    port = int(server.url.rpartition(":")[2].rstrip("/"))
    assert page.value("document.getElementById('stale').hidden")
    server.close()
    page.until("document.getElementById('connection').textContent === 'Disconnected'")
    assert page.text("#stale").startswith("Disconnected: the state of all sandboxes is unknown.")
    sign = "getComputedStyle(document.querySelector('.state'), '::before').content"
    assert page.value(sign) == '"? "'
    assert page.value("document.title").startswith("? ")
    watched.add("web-2")
    serve(port=port)
    page.until("document.getElementById('connection').textContent === 'Live'")
    assert names(page) == ["web-1", "web-2"]
    assert page.value(sign) == '"● "'
    page.close()


def test_dark_and_light_and_every_width(watched: Watched, opened: Open) -> None:
    for number, state in enumerate(SandboxState):
        watched.add(f"web-{number}", state, detail="a reason of some length, which takes more than a line of a phone")
    page = opened()
    for width in (320, 600, 1280, 2560):
        for dark in (False, True):
            page.resize(width, 800, dark=dark)
            for fragment in ("", "#web-3"):
                page.value(f"location.hash = '{fragment}'")
                page.until(f"document.getElementById('detail').hidden === {'false' if fragment else 'true'}")
                assert page.value("document.documentElement.scrollWidth <= innerWidth")
                assert page.value(CONTRAST) == []


# What has less contrast to its background than 4.5:1 (WCAG 2, 1.4.3, AA).
CONTRAST = """(() => {
  const read = color => color.match(/[0-9.]+/g).map(Number);
  const light = color => {
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = color.slice(0, 3).map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let each = element; each; each = each.parentElement) {
      const color = read(getComputedStyle(each).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(each => each.nodeType === 3 && each.data.trim())) continue;
    if (!element.checkVisibility()) continue;
    const pair = [read(getComputedStyle(element).color), ground(element)].map(light).sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) bad.push(`${element.outerHTML.slice(0, 200)}: ${ratio}`);
  }
  return bad;
})()"""
