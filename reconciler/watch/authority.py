"""What the operator allows at present: the policy that was read last and was valid."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Protocol

from reconciler.errors import ReconcilerError
from reconciler.manifest import policy as policies
from reconciler.model.policy import POLICY_FILE, Policy
from reconciler.values import replace


class InForce(Protocol):
    """Knows the policy in force."""

    @property
    def policy(self) -> Policy:
        """Return it. Any thread may ask."""
        ...


class Authority:
    """The policy in force. Any thread may read `policy`; only the main thread reads it anew.

    `file`: where it is; `problem`: why the present file is not in force, empty if it is; `read`: when it was read last,
    in Unix seconds.
    """

    def __init__(self, file: str | None, paths: Sequence[str], *, push: bool = False) -> None:
        """Read the policy for manifests below some paths. Raises what `manifest.policy.read` raises.

        `push`: whether the agent is pushed into machines, where the policy allows that.
        """
        self._file, self._paths, self._push = file, tuple(paths), push
        self.file = os.path.abspath(file or POLICY_FILE)
        self.read = time.time()
        self.policy: Policy = self._policy()
        self.problem = ""

    def _policy(self) -> Policy:
        return replace(policies.read(self._file, self._paths), may_push=self._push)

    def reload(self) -> None:
        """Read the policy anew. If that is impossible, or the file is wrong, the one before stays in force."""
        self.read = time.time()
        try:
            self.policy, self.problem = self._policy(), ""
        except ReconcilerError as error:
            self.problem = f"{self._file or POLICY_FILE} is not used, and the policy before stays in force: {error}"
