"""What an image needs to have our agent from its first boot: a unit of systemd, and user-data for cloud-init."""

from __future__ import annotations

import base64
import gzip

from reconciler.guest.push import FOLDERS, PROPERTIES, UNIT, source

# Where the agent is in the image.
FILE = "/usr/local/lib/reconciler-agent.py"
# Properties of [Unit]; all others are of [Service].
_OF_UNIT = "StartLimitIntervalSec"
# Characters of a line of base64.
_WIDTH = 100


def unit() -> str:
    """Return a unit of systemd that runs the agent as it would run if it were pushed."""
    limits = "\n".join(each for each in PROPERTIES if not each.startswith(_OF_UNIT))
    limit = next(each for each in PROPERTIES if each.startswith(_OF_UNIT))
    return f"""[Unit]
Description=reconciler agent
{limit}

[Service]
ExecStartPre=+/bin/mkdir -p {FOLDERS}
ExecStart=/usr/bin/python3 -I {FILE}
{limits}

[Install]
WantedBy=multi-user.target
"""


def cloud_init() -> str:
    """Return user-data for cloud-init that installs the agent and its unit, and starts it."""
    text = base64.b64encode(gzip.compress(source(), mtime=0)).decode()
    lines = [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
    return f"""#cloud-config
write_files:
  - path: {FILE}
    permissions: "0644"
    encoding: gz+b64
    content: |
{_indented(lines)}
  - path: /etc/systemd/system/{UNIT}.service
    permissions: "0644"
    content: |
{_indented(unit().splitlines())}
runcmd:
  - [systemctl, daemon-reload]
  - [systemctl, enable, --now, {UNIT}.service]
"""


def _indented(lines: list[str]) -> str:
    return "\n".join(f"      {line}" if line else "" for line in lines)
