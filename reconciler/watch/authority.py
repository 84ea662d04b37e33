"""What the operator allows at present: the policy that was read last and was valid."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from reconciler.errors import ReconcilerError
from reconciler.manifest import policy as policies
from reconciler.model.policy import POLICY_FILE, Policy


class Authority:
    """The policy in force. Any thread may read `policy`; only the main thread reads it anew.

    `file`: where it is; `problem`: why the present file is not in force, empty if it is; `read`: when it was read last,
    in Unix seconds.
    """

    def __init__(self, file: str | None, paths: Sequence[str]) -> None:
        """Read the policy for manifests below some paths. Raises what `manifest.policy.read` raises."""
        self._file, self._paths = file, tuple(paths)
        self.file = os.path.abspath(file or POLICY_FILE)
        self.read = time.time()
        self.policy: Policy = policies.read(file, self._paths)
        self.problem = ""

    def reload(self) -> None:
        """Read the policy anew. If that is impossible, or the file is wrong, the one before stays in force."""
        self.read = time.time()
        try:
            self.policy, self.problem = policies.read(self._file, self._paths), ""
        except ReconcilerError as error:
            self.problem = f"{self._file or POLICY_FILE} is not used, and the policy before stays in force: {error}"
