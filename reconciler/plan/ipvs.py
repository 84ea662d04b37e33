"""The IPVS table: what is added, edited and deleted, and in which order.

Additions and edits come before deletions, for three reasons. The kernel's list of removed servers, which it searches
for each added one, is still empty. No service is ever without servers. And the last service of a family is never
deleted before its replacement exists: the kernel would unhook IPVS, and answer packets of living connections with a
reset.

Each service is followed by its servers, except when a table is restored. Then all services come first, and before them
one of each family: the first service of a family ends the resets (net/netfilter/ipvs/ip_vs_ctl.c: ip_vs_trash_get_dest,
__ip_vs_del_service).

Draining means weight 0, and some schedulers refuse the clients of a server of weight 0. While servers of such a service
drain, the fallback flag of its scheduler is on. With `dh`, which has none, servers are deleted at once; only the
servers of a service that is removed whole drain, as nobody else could take their clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.diff import diff
from reconciler.model.ipvs import CONNTRACK, FWMARK, NODEST, Ipvs, Load, Server, Service, ServiceKey, Timeouts, due
from reconciler.model.sandbox import Surroundings
from reconciler.operations.ipvs import (
    AddServer,
    AddService,
    DeleteConntrack,
    DeleteServer,
    DeleteService,
    DrainServer,
    EditServer,
    EditService,
    IpvsOperation,
    MarkService,
    SetSysctl,
    SetTimeouts,
    StartExpiring,
    StopExpiring,
    StopFallback,
)
from reconciler.values import dataclass, field, replace

# Operations on a desired service and on its desired servers.
_Addition = AddService | EditService | MarkService | AddServer | EditServer
# From this many added servers on, the plan for a nearly empty table counts as a restore.
RESTORE = 500


@dataclass(slots=True)
class IpvsPlan:
    """The operations in order, and how many servers are drained.

    `services`, `servers`: (how many are deleted for good, of how many that are ours).
    """

    operations: list[IpvsOperation] = field(default_factory=list)
    draining: int = 0
    services: tuple[int, int] = (0, 0)
    servers: tuple[int, int] = (0, 0)


def plan_ipvs(desired: Ipvs, observed: Ipvs, around: Surroundings) -> IpvsPlan:
    """Plan the services and settings that `desired` describes; None in it means: leave alone."""
    plan = IpvsPlan()
    plan.operations += _plan_settings(desired, observed)
    found = observed.services or ()
    additions, removals = _Additions(), _Removals(desired.drain, around)
    for change in [] if desired.services is None else diff(with_observed_weights(desired.services, found), found):
        before, after = change.before, change.after
        drains = before is not None and removals.add(before, after)
        if after:
            # A command of a person is about the observed servers, including those that drain.
            drains |= after.has_draining
            # A fallback that is on stays until weights are restored and drained servers are deleted.
            during = after.while_draining() if drains or (before and before.draining) else after
            additions.add(before, during)
            removals.operations += [StopFallback(service=after)] if during != after and not drains else []
    plan.operations += additions.operations(sum(len(service.servers) for service in (*found, *around.services)))
    settings = dict(observed.sysctls) | dict(desired.sysctls)
    # If the kernel is set to expire connections anyway, there is nothing to switch on, nor to restore.
    stale = not settings.get(NODEST) and any(service.protocol in ("udp", FWMARK) for service in removals.cut)
    plan.operations += [StartExpiring()] if stale else []
    plan.operations += removals.operations
    plan.operations += [StopExpiring()] if stale or (around.expiring and not settings.get(NODEST)) else []
    plan.operations += _forget_tracked([*removals.cut, *additions.began]) if settings.get(CONNTRACK) else []
    plan.draining = removals.waiting
    plan.services = (removals.services, len(found) - removals.ending)
    plan.servers = (removals.servers, sum(len(service.servers) for service in found) if removals.servers else 0)
    return plan


def _plan_settings(desired: Ipvs, observed: Ipvs) -> Iterator[SetSysctl | SetTimeouts]:
    had = dict(observed.sysctls)
    for name, value in desired.sysctls:
        if had.get(name) != value:
            yield SetSysctl(name=name, value=value, before=had.get(name))
    pairs = zip(desired.timeouts, observed.timeouts, strict=True)
    changed = Timeouts(*(wish if wish != before else None for wish, before in pairs))
    if any(changed):
        yield SetTimeouts(timeouts=changed, before=observed.timeouts)


def with_observed_weights(wishes: Sequence[Service], found: Sequence[Service]) -> list[Service]:
    """Return the services with the observed weights of servers where `ignore` leaves these to others."""
    if not any(wish.ignore for wish in wishes):
        return list(wishes)
    had = {service.key: {server.key: server for server in service.servers} for service in found}
    return [_with_weights(wish, had.get(wish.key, {})) if "weight" in wish.ignore else wish for wish in wishes]


def _with_weights(wish: Service, had: dict[tuple[str, int], Server]) -> Service:
    servers = tuple(
        replace(server, weight=before.weight) if (before := had.get(server.key)) and before.deadline is None else server
        for server in wish.servers
    )
    return replace(wish, servers=servers, ignore=())


def _bare(service: Service) -> Service:
    return replace(service, servers=(), ignore=())


class _Additions:
    """What is added and edited, service by service. `began`: services that get their first servers."""

    def __init__(self) -> None:
        # One group for each added or edited service: the operations on itself and on its servers.
        self._groups: list[list[_Addition]] = []
        self.began: list[Service] = []
        self._added = 0

    def add(self, before: Service | None, after: Service) -> None:
        """Plan the additions and edits of a desired service."""
        key = after.key
        group: list[_Addition] = []
        if before is None:
            group.append(AddService(service=after))
            group += [AddServer(service=key, server=server) for server in after.servers]
            self._record(before, after, group, len(after.servers))
            return
        if _bare(before) != _bare(after):
            only_marks = replace(_bare(before), marked=after.marked) == _bare(after)
            group.append(MarkService(service=after) if only_marks else EditService(service=after, before=before))
        added = 0
        for change in diff(after.servers, before.servers):
            if change.after and change.before:
                group.append(EditServer(service=key, server=change.after, before=change.before))
            elif change.after:
                group.append(AddServer(service=key, server=change.after))
                added += 1
        self._record(before, after, group, added)

    def _record(
        self,
        before: Service | None,
        after: Service,
        group: list[_Addition],
        added: int,
    ) -> None:
        self._added += added
        if group:
            self._groups.append(group)
        if after.servers and not (before and before.servers):
            self.began.append(after)

    def operations(self, present: int) -> list[IpvsOperation]:
        """Return the operations in order. `present`: how many servers the table has, ours and foreign."""
        restored = self._added >= RESTORE and present * 10 <= self._added
        if not restored:
            return [operation for group in self._groups for operation in group]
        services = [group[0] for group in self._groups if isinstance(group[0], AddService)]
        first = {each.service.is_ipv6: each for each in reversed(services)}
        heads = [*first.values(), *(each for each in services if each is not first[each.service.is_ipv6])]
        return [*heads, *(each for group in self._groups for each in group if not isinstance(each, AddService))]


class _Removals:
    """What is deleted and drained."""

    def __init__(self, drain: int, around: Surroundings) -> None:
        self._drain = drain
        self._around = around
        self.operations: list[IpvsOperation] = []
        # Counts: servers that are drained, services and servers that this plan deletes, services that an earlier one
        # deleted.
        self.waiting = self.services = self.servers = self.ending = 0
        # Services that lose servers with living connections: their clients have to be given other servers.
        self.cut: list[Service] = []

    def add(self, before: Service, after: Service | None) -> bool:
        """Plan the deletions for an observed service, of which `after` is desired.

        Return whether servers of it drain beside those that stay.
        """
        wanted = {server.key for server in after.servers} if after else set()
        removed = [server for server in before.servers if server.key not in wanted]
        self.ending += after is None and bool(removed) and all(server.deadline is not None for server in removed)
        if after is not None:
            drain = self._drain if after.can_drain else 0
            return not self._remove_all(before, removed, drain, kept=True)
        if not self._drain or self._remove_all(before, removed, self._drain, kept=False):
            self._delete_service(before, removed)
        else:
            # The service counts as deleted when the first of its servers is drained, and only once.
            self.services += any(server.deadline is None for server in removed)
        return False

    def _delete_service(self, service: Service, servers: list[Server]) -> None:
        fresh = [server for server in servers if server.deadline is None]
        self.services += bool(fresh) or not servers
        self.servers += len(fresh)
        self.operations.append(DeleteService(service=service))
        self._record_cut(service, servers)

    def _remove_all(self, service: Service, servers: list[Server], drain: int, *, kept: bool) -> bool:
        """Plan the next step for each of these servers. Return whether all of them can be deleted now."""
        waiting = [server for server in servers if not self._remove(service, server, drain, kept=kept)]
        return not waiting

    def _remove(self, service: Service, server: Server, drain: int, *, kept: bool) -> bool:
        """Plan the next step of deleting or draining a server. Return whether it can be deleted now."""
        draining = server.deadline is not None
        if drain and not draining:
            until = self._around.now + drain
            drained = server.draining(until)
            self.operations.append(DrainServer(service=service.key, server=drained, before=server))
            self.servers += 1
            self.waiting += 1
            return False
        if drain and not self._is_over(service.key, server):
            self.waiting += 1
            return False
        if kept:
            self.operations.append(DeleteServer(service=service.key, server=server))
            self.servers += not draining
            self._record_cut(service, [server])
        return True

    def _is_over(self, key: ServiceKey, server: Server) -> bool:
        past = server.deadline is not None and due(server.deadline, self._around.now) <= self._around.now
        return past or not self._around.connections.get((key, server.key), Load()).total

    def _record_cut(self, service: Service, servers: list[Server]) -> None:
        fresh = any(server.deadline is None for server in servers)
        if fresh or any(self._around.connections.get((service.key, server.key), Load()).total for server in servers):
            self.cut.append(service)


def _forget_tracked(services: Sequence[Service]) -> Iterator[DeleteConntrack]:
    """Yield deletions of tracked UDP flows: to deleted servers, and older than a new service. They would never end."""
    for address in dict.fromkeys(service.address for service in services if service.protocol == "udp"):
        yield DeleteConntrack(address=address, protocol="udp")
