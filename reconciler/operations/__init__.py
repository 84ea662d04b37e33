"""The operations as values: what is done to which object, and the command that an engineer would type for it.

Each kind of object has one module. Commands are for a shell in the sandbox's namespace, except those that move a device
of the host. In these, `netns $$` is the namespace of the shell that runs on the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    # The operations of IPVS, machines and runtimes are imported only if a plan has any.
    from reconciler.operations.interface import MoveOperation
    from reconciler.operations.ipvs import IpvsOperation
    from reconciler.operations.machine import MachineOperation
    from reconciler.operations.network import NetworkOperation
    from reconciler.operations.runtime import RuntimeOperation
    from reconciler.operations.sysctl import SetNetworkSysctl

Operation: TypeAlias = (
    "NetworkOperation | SetNetworkSysctl | MoveOperation | IpvsOperation | MachineOperation | RuntimeOperation"
)
