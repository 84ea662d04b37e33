"""The operations as values: what is done to what, and the command an engineer would type for it.

One module a kind of object. Commands are for a shell in the sandbox's namespace, except where a device comes from the
host; `netns $$` is the namespace of the shell that was there before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    # The operations of IPVS, machines and runtimes are loaded only where there are any.
    from reconciler.operations.interface import MoveOperation
    from reconciler.operations.ipvs import IpvsOperation
    from reconciler.operations.machine import MachineOperation
    from reconciler.operations.network import NetworkOperation
    from reconciler.operations.runtime import RuntimeOperation

Operation: TypeAlias = "NetworkOperation | MoveOperation | IpvsOperation | MachineOperation | RuntimeOperation"
