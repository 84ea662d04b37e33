"""A watch repairs links that are made in a namespace: a port that was taken out, an option, a link that was deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.watch.running import Keep, Kept, watching


def link(kept: Kept, name: str) -> dict[str, Any]:
    """Return what `ip` says of a link; nothing if it does not exist."""
    found = [each for each in json.loads(kept.ip("-d", "-j", "link")) if each["ifname"] == name]
    return dict(found[0]) if found else {}


def test_each_drift_of_what_is_made_is_repaired(folder: Path, keep: Keep) -> None:
    kept = keep()
    (nic,) = kept.sections["interfaces"]
    bridge = {"name": "br0", "bridge": {"ageingTime": 60}}
    above = {"name": "mv0", "macvlan": {"link": "br0"}, "addresses": ["10.5.0.2/24"]}
    kept.write(interfaces=[nic | {"master": "br0"}, bridge, above])
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        for attack, holds in (
            (("link", "set", "eth0", "nomaster"), lambda: link(kept, "eth0").get("master") == "br0"),
            (
                ("link", "set", "br0", "type", "bridge", "ageing_time", "7000"),
                lambda: link(kept, "br0").get("linkinfo", {}).get("info_data", {}).get("ageing_time") == 6000,
            ),
            (
                ("link", "del", "br0"),
                lambda: link(kept, "mv0").get("link") == "br0" and link(kept, "eth0").get("master"),
            ),
            (("link", "set", "mv0", "down"), lambda: "UP" in link(kept, "mv0").get("flags", ())),
        ):
            kept.ip(*attack)
            watcher.until(holds, " ".join(attack))
        # And it goes once the manifest lacks it.
        kept.write(interfaces=[nic])
        watcher.until(lambda: not link(kept, "br0") and not link(kept, "mv0"), "br0 and mv0 are deleted")
        watcher.await_state("converged", kept.name)
