"""All output of the commands: lines for people, and plain data for programs.

Text for people is made printable and short here, and nowhere else. `guarded` does the same for what others print:
argparse, tracebacks, warnings of Python. Only this module writes control characters: those of colours, and of the
progress.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, TextIO, cast

from reconciler.cli.terminal import aligned, columns, cut, is_ascii, is_dumb, rows_of, width
from reconciler.errors import Problem, bounded
from reconciler.values import NamedTuple
from reconciler.wording import LONGEST, plural, printable, printable_lines, shorten, to_json

_COLORS = {"+": "\x1b[32m", "~": "\x1b[33m", "-": "\x1b[1;31m", "^": "\x1b[31m"}
_RESET = "\x1b[0m"
# What stands in front of a source line.
_MARGIN = "{:>5} | "
_ERASE_LINE, _ERASE_BELOW, _HOME = "\x1b[K", "\x1b[J", "\x1b[H"
_CLEAR = f"\r{_ERASE_LINE}"
# xterm's other screen, with the cursor hidden; and back.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Painted(NamedTuple):
    """A line of which one part is in the colour of a sign."""

    text: str
    sign: str
    before: str = ""
    after: str = ""


Line = str | Painted


class _Guard:
    """A stream that makes printable what is written to it, except the ends of lines."""

    def __init__(self, plain: TextIO) -> None:
        self.plain = plain

    def write(self, text: str) -> int:
        self.plain.write(printable_lines(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Make everything printable that this process writes to its standard output and error during the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", _Guard(each)) for each in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _plain(stream: TextIO) -> TextIO:
    return stream.plain if isinstance(stream, _Guard) else stream


def say(*lines: Line, color: bool = False) -> None:
    """Print lines on standard output, in colour if that is wanted and it is a terminal."""
    _print(sys.stdout, lines, wanted=color)


def warn(*lines: Line, color: bool = False) -> None:
    """Print lines on standard error, in colour if that is wanted and it is a terminal."""
    _print(sys.stderr, lines, wanted=color)


def _print(stream: TextIO, lines: Sequence[Line], *, wanted: bool) -> None:
    color = wanted and _takes_color(stream)
    _plain(stream).write("".join(f"{_shown(line, color)}\n" for line in lines))


def _takes_color(stream: TextIO) -> bool:
    """Return whether to print in colour: on a terminal that has it, and only if NO_COLOR is not set (no-color.org)."""
    return not os.environ.get("NO_COLOR") and is_obedient(stream)


def is_obedient(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that has colours, and whose lines can be replaced."""
    return stream.isatty() and not is_dumb()


def _shown(line: Line, color: bool) -> str:
    if isinstance(line, str):
        return printable(shorten(line))
    before, text, after = (printable(shorten(each)) for each in (line.before, line.text, line.after))
    return f"{before}{_COLORS[line.sign]}{text}{_RESET}{after}" if color else f"{before}{text}{after}"


def rewrite(line: str) -> None:
    """Replace the last line on standard error, a terminal, by another one, which does not end. Empty: erase it.

    What does not fit into one row is cut: only one row can be erased.
    """
    stream = _plain(sys.stderr)
    stream.write(f"{_CLEAR}{cut(line, (columns(stream) or LONGEST) - 1, stream)}")
    stream.flush()


class Screen:
    """The screen of the terminal on standard output, for a picture that changes; left as it was at the end.

    That is so for each signal that ends a process as well: SIGTERM and SIGHUP raise KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._shown = ""

    @staticmethod
    def is_possible() -> bool:
        """Return whether standard output is a terminal whose screen can be drawn on."""
        return is_obedient(sys.stdout)

    def __enter__(self) -> Self:
        def end(*_: object) -> None:
            raise KeyboardInterrupt

        def stop(*_: object) -> None:
            # A handler can come in the middle of a write, so it does not use the stream.
            os.write(sys.stdout.fileno(), _LEAVE.encode())
            os.kill(os.getpid(), signal.SIGSTOP)
            os.write(sys.stdout.fileno(), _ENTER.encode())
            self._shown = ""

        handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGTSTP: stop}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._write(_ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        self._write(_LEAVE)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def draw(self, lines: Sequence[str]) -> None:
        """Replace all that is on the screen. What does not fit is cut, and said."""
        stream = _plain(sys.stdout)
        most = columns(stream) or LONGEST
        rows = max(rows_of(stream), 2)
        if len(lines) > rows:
            lines = [*lines[: rows - 1], f"… {len(lines) - rows + 1:,} more lines"]
        picture = "\r\n".join(f"{cut(each, most, stream)}{_ERASE_LINE}" for each in lines)
        if picture != self._shown:
            self._shown = picture
            self._write(f"{_HOME}{picture}{_ERASE_BELOW}")

    @staticmethod
    def _write(text: str) -> None:
        stream = _plain(sys.stdout)
        stream.write(text)
        stream.flush()


def sink(descriptor: int) -> Callable[[bytes], None]:
    """Return what writes the output of a program to standard output (1) or error (2); to a terminal, printable."""
    stream = sys.stdout if descriptor == 1 else sys.stderr
    if not stream.isatty():
        return partial(_write_all, descriptor)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")

    def show(data: bytes) -> None:
        # Programs end lines with a carriage return as well, and align columns with tabs.
        text = decoder.decode(data).replace("\r\n", "\n").expandtabs()
        _plain(stream).write(printable_lines(text))
        stream.flush()

    return show


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def print_data(data: Any, form: str) -> None:
    """Print plain data on stdout; `form` is `json` or `yaml`."""
    if form == "json":
        print(to_json(data, indent=2, ascii_only=is_ascii(_plain(sys.stdout))))
    else:
        print_documents([data])


def print_line(data: Any) -> None:
    """Print plain data on stdout as one line of JSON."""
    print(to_json(data, ascii_only=is_ascii(_plain(sys.stdout))))


def flush() -> None:
    """Write out what was printed on stdout."""
    sys.stdout.flush()


def print_documents(documents: Sequence[Any]) -> None:
    """Print plain data on stdout as documents of YAML."""
    from reconciler.manifest.dump import dump

    print(dump(documents, ascii_only=is_ascii(_plain(sys.stdout))), end="")


def show_problems(problems: Sequence[Problem], *, color: bool) -> None:
    """Print problems on stderr: each with its source line if the file could be read, then their number."""
    lines: list[Line] = []
    for problem in problems:
        lines.append(str(problem))
        if problem.line and problem.excerpt:
            lines += _excerpt(problem)
    files = len({problem.file for problem in problems if problem.file})
    count = sum(problem.times for problem in problems)
    lines.append(f"{count:,} {plural('problem', count)} in {files} {plural('file', files)}.")
    warn(*lines, color=color)


def print_warnings(problems: Iterable[Problem]) -> None:
    """Print warnings on stderr: what is valid but will hardly work."""
    warn(*render_warnings(problems))


def render_warnings(problems: Iterable[Problem]) -> Iterator[str]:
    """Yield the lines of warnings."""
    for problem in bounded(list(problems)):
        path = f"{problem.path}: " if problem.path else ""
        yield str(problem._replace(path="", message=f"warning: {path}{problem.message}"))


def _excerpt(problem: Problem) -> Iterator[Line]:
    """Yield the part of a source line that fits the terminal, and marks below what the problem is about."""
    stream = _plain(sys.stderr)
    # Each character stays one of these, however many columns it takes.
    shown = [aligned(each, stream) if each.isprintable() else " " for each in problem.excerpt]
    at = problem.column - 1 - problem.start
    room = (columns(stream) or LONGEST) - len(_MARGIN.format(""))
    if width("".join(shown)) > room:
        while width("".join(shown[:at])) > room // 4:
            shown, at = shown[1:], at - 1
        while width("".join(shown)) > room:
            shown.pop()
    yield f"{_MARGIN.format(problem.line)}{''.join(shown)}"
    marks = width("".join(shown[at : at + problem.width])) or 1
    before = " " * (width("".join(shown[:at])) + max(at - len(shown), 0))
    yield Painted("^" * marks, "^", before=f"{_MARGIN.format('')}{before}")
