"""PyYAML in a process that has read a manifest with libyaml alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each is a process of its own, as this one has the whole of PyYAML.
_READ = "import sys; from reconciler.manifest.compose import compose; assert compose('a: 1') == [{'a': 1}]; "


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("print('yaml.constructor' in sys.modules)", "False"),
        ("import yaml; print(yaml.safe_load('a: 2020-01-01'))", "{'a': datetime.date(2020, 1, 1)}"),
        ("from yaml import CSafeLoader, load; print(load('[1]', CSafeLoader))", "[1]"),
        ("import yaml.reader; print(yaml.reader.Reader.__name__, yaml.error.Mark.__name__)", "Reader Mark"),
        ("from reconciler.manifest.dump import dump; print(dump([{'a': 1}]))", "{a: 1}\n"),
        ("import yaml; print(hasattr(yaml, 'nothing'), yaml.__version__[0])", "False 6"),
        # The C module raises the real errors from then on.
        (
            "import yaml\ntry: yaml.load('[', yaml.CSafeLoader)\nexcept yaml.parser.ParserError: print('parser')",
            "parser",
        ),
        (
            (
                "import yaml\ntry: yaml.load('a: \\x01', yaml.CSafeLoader)\n"
                "except yaml.reader.ReaderError as e: print(e.character)"
            ),
            "1",
        ),
        (
            (
                "\nfrom reconciler.manifest.compose import ComposeError"
                "\nfor t in ('[', 'a: \\x01', '- a\\n - [:'):"
                "\n try: compose(t)"
                "\n except ComposeError as e: print(e.line, e.column, end=' ')"
                "\nprint('yaml.constructor' in sys.modules)"
            ),
            "1 0 0 3 1 4 False",
        ),
    ],
)
def test_the_rest_is_there_once_it_is_used(code: str, printed: str) -> None:
    done = subprocess.run([sys.executable, "-c", _READ + code], check=False, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == f"{printed}\n"
