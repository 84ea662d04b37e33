"""Files in which no manifest is."""

from __future__ import annotations

from tests.manifest.texts import Row, manifest

ID = "a sandbox ID or name: 1 to 64 letters, digits, '_', '-' and '.', the first a letter or digit"
DRIVER = "one driver and its address, such as {netns: {name: web-1}}"
EMPTY = "is empty; to remove what reconciler created, write empty sections such as `routes: []`"
OTHER = (
    "bad.yaml: is not a manifest: that begins with `apiVersion: reconciler/v1`, or another "
    "of its fields; `reconciler import` converts files of other tools"
)
MANIFEST = "a manifest: a mapping with apiVersion, sandbox and driver"

ROWS: list[Row] = [
    ("empty", "", [f"bad.yaml: {EMPTY}"]),
    ("blank", "\n\n", [f"bad.yaml: {EMPTY}"]),
    ("byte order mark alone", "\ufeff", [f"bad.yaml: {EMPTY}"]),
    ("comment alone", "# apiVersion: reconciler/v1\n", [f"bad.yaml: {EMPTY}"]),
    ("document marker alone", "---\n", [f"bad.yaml: {EMPTY}"]),
    ("document markers alone", "---\n---\n---\n", [f"bad.yaml: {EMPTY}"]),
    ("null", "null\n", [f"bad.yaml: {EMPTY}"]),
    (
        "braces alone",
        "{}\n",
        [
            "bad.yaml:1:1: apiVersion: missing; expected reconciler/v1",
            f"bad.yaml:1:1: sandbox: missing; expected {ID}",
            f"bad.yaml:1:1: driver: missing; expected {DRIVER}",
        ],
    ),
    ("brackets alone", "[]\n", [OTHER]),
    ("number", "5\n", [OTHER]),
    ("text", "web-1\n", [OTHER]),
    (
        "empty documents around one in which something is wrong",
        "---\n" * 3 + manifest("sandbox: 5.") + "---\n# no\n---\n" + manifest("sandbox"),
        [f"bad.yaml:10:1: sandbox: missing; expected {ID}"],
    ),
    ("list as a document", f"{manifest()}---\n[]\n", [f"bad.yaml:5:1: an empty list; expected {MANIFEST}"]),
    ("number as a document", f"{manifest()}---\n5\n", [f"bad.yaml:5:1: 5 is a number; expected {MANIFEST}"]),
    ("text as a document", f"{manifest()}---\nweb-1\n", [f'bad.yaml:5:1: "web-1" is text; expected {MANIFEST}']),
    ("of another program", "apiVersion: v1\nkind: Config\n", [OTHER]),
    ("passwords", "root:$y$j9T$k:20000:0:99999:7:::\nsandbox:!:\n", [OTHER]),
    (
        "list of manifests",
        "".join(f"- {each}\n" for each in ("a", "b")),
        [OTHER],
    ),
]
