"""All operations that netlink's route family executes within a sandbox."""

from __future__ import annotations

from reconciler.operations.address import AddressOperation
from reconciler.operations.interface import LinkOperation
from reconciler.operations.item import ItemOperation
from reconciler.operations.made import MadeOperation
from reconciler.operations.route import RouteOperation

NetworkOperation = LinkOperation | MadeOperation | AddressOperation | RouteOperation | ItemOperation
