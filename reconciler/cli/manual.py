"""What the help of each command adds to its options: examples and exit codes. The manual page has the same.

Each example is pasteable, and a test parses it.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator

from reconciler.values import NamedTuple

# Exit codes → their meaning. A code that is no number stands for several.
Exits = dict[str, str]


class Help(NamedTuple):
    """The examples of a command, each with what it does, and its exit codes."""

    examples: dict[str, str]
    exits: Exits

    def render(self) -> str:
        """Return both as text, as wide as the terminal."""
        width = max(shutil.get_terminal_size().columns - 2, 20)
        return "\n".join((*self._render(width), ""))

    def _render(self, width: int) -> Iterator[str]:
        yield "examples:"
        for command, purpose in self.examples.items():
            yield from textwrap.wrap(purpose, width, initial_indent="  # ", subsequent_indent="  # ")
            # A command is one line, however long: it is there to be copied.
            yield f"  {command}"
        yield "\nexit codes:"
        for code, meaning in self.exits.items():
            yield from textwrap.wrap(f"{code:<3} {meaning}", width, initial_indent="  ", subsequent_indent="      ")


_ERROR: Exits = {"2": "an error; standard error says which"}
_REFUSED: Exits = {"3": "refused for safety or by the operator's policy; nothing was changed"}
_INTERRUPTED: Exits = {"130": "interrupted; the same command again finishes"}
_DONE: Exits = {"0": "done, or nothing to do"}
_CHANGES = _DONE | _ERROR | _REFUSED | _INTERRUPTED
_READS = {"0": "done"} | _ERROR | _REFUSED
_KATA = Help({}, _DONE | _ERROR | _REFUSED)

MANUAL = {
    "reconciler": Help(
        {
            "sudo reconciler init --netns web-1 > web-1.yaml": "begin a manifest of what is there",
            "reconciler validate web-1.yaml": "is the manifest right?",
            "sudo reconciler diff web-1.yaml": "what would be done? As commands that an engineer would type",
            "sudo reconciler apply web-1.yaml": "do it, and verify the result",
            "reconciler explain routes.nexthops": "what is this field of a manifest?",
        },
        {
            "0": "nothing to do, or done",
            "1": "something differs (diff), or a sandbox is not as it should be (status)",
        }
        | _ERROR
        | _REFUSED
        | _INTERRUPTED,
    ),
    "reconciler init": Help(
        {
            "sudo reconciler init --netns web-1 > web-1.yaml": "begin a manifest for a network namespace",
            "sudo reconciler init --vm web-2 --sandbox edge-2 > edge-2.yaml": "begin one for a virtual machine",
            "reconciler init": "what does this host have? Without root, what is in a sandbox is not read",
        },
        {"0": "done"} | _ERROR,
    ),
    "reconciler explain": Help(
        {
            "reconciler explain": "what is in a manifest?",
            "reconciler explain routes.nexthops": "what is this field?",
            "reconciler explain 'interfaces[0].mtu'": "the same, by a path as messages have it",
        },
        {"0": "done", "2": "there is no such field; standard error says what may be meant"},
    ),
    "reconciler validate": Help(
        {
            "reconciler validate web-1.yaml": "check one manifest",
            "reconciler validate -o json manifests/": "check all manifests below a folder, and each against the others",
            "git show HEAD:web-1.yaml | reconciler validate -": "check what another command prints",
        },
        {"0": "all manifests are valid"}
        | {"2": "a manifest is wrong, or cannot be read"}
        | {"3": "nothing else is wrong, but the operator's policy does not allow what a manifest names"},
    ),
    "reconciler diff": Help(
        {
            "sudo reconciler diff web-1.yaml": "what would `apply` do?",
            "sudo reconciler diff -o json manifests/": "the same of all sandboxes, for programs",
            "sudo reconciler diff -o shell web-1.yaml": "the same as a script",
            "sudo reconciler diff --since 1h web-1.yaml": "what does the manifest ask for that it did not an hour ago?",
            "reconciler diff --since HEAD~1 manifests/": "what have manifests asked for since a revision of git?",
            "sudo reconciler diff --prove web-1.yaml": "also carry the plan out in a copy of the sandbox",
            "reconciler diff --observed saved.yaml web-1.yaml": "compare with a saved `show`, without root",
        },
        {"0": "nothing differs", "1": "something differs"} | _ERROR | _REFUSED,
    ),
    "reconciler apply": Help(
        {
            "sudo reconciler apply web-1.yaml": "change the sandbox until it matches its manifest",
            "sudo reconciler apply --expect 41de-7f3a-91c2 web-1.yaml": "only if that is what `diff` has shown",
            "sudo reconciler apply --allow-delete 50% manifests/": "allow deletions of up to half of a kind of object",
            "sudo reconciler apply --max-cut 0 web-1.yaml": "only if that cuts no connection",
            "sudo reconciler apply --only 'web-*' manifests/": "only some sandboxes of a folder",
            "sudo reconciler apply -o json manifests/": "what was done, for programs",
            "sudo reconciler apply --all-or-nothing -v web-1.yaml": "undo everything if an operation fails",
            "sudo reconciler apply --adopt web-1.yaml": "take over what others made, if it equals the manifest",
            "sudo reconciler apply --confirm 60s web-1.yaml": "undo it after a minute, unless it is confirmed",
        },
        _CHANGES,
    ),
    "reconciler confirm": Help(
        {"sudo reconciler confirm web-1": "keep a change that `apply --confirm` has made"},
        {"0": "done"} | _ERROR,
    ),
    "reconciler watch": Help(
        {
            "sudo reconciler watch /etc/reconciler/manifests": "keep all sandboxes of a folder as their manifests say",
            "sudo reconciler watch --mode report manifests/": "report drift, and change nothing",
            "sudo reconciler watch --ui 9180 manifests/": "show all sandboxes at http://127.0.0.1:9180/",
            "sudo reconciler watch --fleet https://gate-1:8443": "keep what a fleet wants of this host",
            "sudo reconciler watch --at-once 10% --bake 5min manifests/": "apply new manifests in batches, on trial",
            "sudo reconciler watch --confirm manifests/": "undo a new manifest whose checks fail",
        },
        {"0": "ended by SIGTERM or SIGINT"} | _ERROR | _REFUSED,
    ),
    "reconciler doctor": Help(
        {
            "sudo reconciler doctor": "what is wrong with the host, the watcher, and all that is watched?",
            "sudo reconciler doctor web-1": "what is wrong on the way to one sandbox, and in it?",
            "sudo reconciler doctor -o json manifests/": "the same of all sandboxes of a folder, for programs",
        },
        {
            "0": "nothing is wrong that can be seen",
            "1": "something is wrong",
            "2": "nothing was found, but not everything could be looked at; or an error",
        },
    ),
    "reconciler status": Help(
        {
            "sudo reconciler status": "how is each sandbox that is watched on this host?",
            "sudo reconciler status web-1": "all about one: looks, drift, fights, connections, servers that drain",
            "sudo reconciler status --watch --state bad": "what is not as it should be, up to date until Ctrl-C",
            "sudo reconciler status -o json": "all, for programs",
        },
        {"0": "all sandboxes are as they should be, or paused", "1": "one is not"} | _ERROR,
    ),
    "reconciler history": Help(
        {
            "sudo reconciler history web-1": "what changed in a sandbox, when, why and by whom?",
            "sudo reconciler history --since 1h 'web-*'": "the same of several, within the last hour",
            "sudo reconciler history --follow -n 10": "the last 10 records of all, and what happens from now on",
            "sudo reconciler history -o json web-1": "all that is recorded, for programs",
        },
        {"0": "done"} | _ERROR | {"130": "--follow: interrupted"},
    ),
    "reconciler pause": Help(
        {
            "sudo reconciler pause web-1 --for 15min --reason 'looking for a fault'": "leave it alone",
            "sudo reconciler pause web-1 --end": "go on, as `resume` does",
        },
        _DONE | _ERROR,
    ),
    "reconciler resume": Help({"sudo reconciler resume web-1": "end the pause of a sandbox"}, _DONE | _ERROR),
    "reconciler show": Help(
        {
            "sudo reconciler show web-1.yaml": "what reconciler owns in the sandbox, as a manifest",
            "sudo reconciler show -o text web-1.yaml": "also what is there and foreign, as a listing",
        },
        _READS,
    ),
    "reconciler import": Help(
        {
            "ipvsadm-save -n | reconciler import --sandbox web-1 --netns web-1 -": "make a manifest of IPVS rules",
            "ip -n web-1 -j -d addr | reconciler import --sandbox web-1 --netns web-1 -": "make one of what ip lists",
            "reconciler import --sandbox web-1 --netns web-1 netplan.yaml": "make one of netplan, networkd or nmstate",
            "reconciler import --sandbox lb-1 --vm lb-1 keepalived.conf": "make one of a configuration of keepalived",
            "sudo reconciler import --netns web-1 --live > web-1.yaml": "make one of what is in a sandbox",
        },
        {"0": "done; standard error names what was left out"} | _ERROR | _REFUSED,
    ),
    "reconciler sandbox": Help(
        {
            "sudo reconciler sandbox start web-2": "start a small virtual machine",
            "sudo reconciler sandbox exec web-2 -- ip route": "run a command in it",
            "sudo reconciler sandbox stop web-2": "stop it",
        },
        _DONE | _ERROR | {"N": "exec: the exit code of the command"},
    ),
    "reconciler sandbox start": Help(
        {
            "sudo reconciler sandbox start web-2": "start a machine, and wait until it answers",
            "sudo reconciler sandbox start --kernel 6.12 --memory 512 web-2": "with another kernel, and more memory",
        },
        _DONE | _ERROR,
    ),
    "reconciler sandbox list": Help(
        {"sudo reconciler sandbox list": "which machines are there?"}, {"0": "done"} | _ERROR
    ),
    "reconciler sandbox exec": Help(
        {"sudo reconciler sandbox exec web-2 -- ip -brief address": "run a command in a machine"},
        {"N": "the exit code of the command"} | _ERROR,
    ),
    "reconciler sandbox stop": Help({"sudo reconciler sandbox stop web-2": "stop a machine"}, _DONE | _ERROR),
    "reconciler agent": Help(
        {
            "sudo reconciler agent status web-2": "which agent has this machine?",
            "reconciler agent cloud-init > user-data": "what does an image need to have the agent?",
        },
        {"0": "done"} | _ERROR | _REFUSED,
    ),
    "reconciler agent push": Help(
        {"sudo reconciler agent push web-2 --manifests web-2.yaml": "push the agent now"}, _DONE | _ERROR | _REFUSED
    ),
    "reconciler agent status": Help(
        {"sudo reconciler agent status web-2 --manifests web-2.yaml": "what does the machine have?"},
        {"0": "this agent was pushed and runs", "1": "it was not, or does not"} | _ERROR | _REFUSED,
    ),
    "reconciler agent remove": Help(
        {"sudo reconciler agent remove web-2 --manifests web-2.yaml": "stop the agent, and unplug its channel"},
        _DONE | _ERROR | _REFUSED,
    ),
    "reconciler agent cloud-init": Help(
        {"reconciler agent cloud-init > user-data": "what does an image need to have the agent?"},
        {"0": "done"} | _ERROR,
    ),
    "reconciler agent unit": Help(
        {"reconciler agent unit > reconciler-agent.service": "how does systemd run the agent?"}, {"0": "done"} | _ERROR
    ),
    "reconciler fleet": Help(
        {
            "reconciler fleet diff sites/": "what would a push change, and on which hosts?",
            "reconciler fleet push --wait sites/": "do it in waves, and wait for the end",
            "reconciler fleet status": "how far are the hosts?",
        },
        {"0": "done, or all is well", "1": "something differs (diff), is not as it should be (status), or has stopped"}
        | _ERROR
        | _REFUSED
        | _INTERRUPTED,
    ),
    "reconciler fleet push": Help(
        {
            "reconciler fleet push sites/": "give each host what its folder says, in waves",
            "reconciler fleet push --expect 41de-7f3a-91c2 --wait sites/": "only what `fleet diff` has shown",
            "reconciler fleet push --waves 1,10%,100% --bake 10min --stop-after 3 sites/": "slowly, and with patience",
            "reconciler fleet push --dry-run sites/": "would it be refused?",
        },
        {"0": "done, or nothing to do", "1": "--wait: the rollout has stopped, or a newer release has replaced it"}
        | _ERROR
        | {"3": "refused for safety; nothing was changed"}
        | {"130": "interrupted; a push that has printed its release goes on by itself"},
    ),
    "reconciler fleet diff": Help(
        {"reconciler fleet diff sites/": "what would a push change?"},
        {"0": "nothing differs", "1": "something differs"} | _ERROR | {"3": "the tree is unsafe to push"},
    ),
    "reconciler fleet status": Help(
        {
            "reconciler fleet status": "how far are the hosts and the rollout?",
            "reconciler fleet status host-1": "all about one host",
            "reconciler fleet status --watch": "the same, up to date until Ctrl-C",
            "reconciler fleet status -o json": "all, for programs",
        },
        {"0": "all hosts have reached their release, or are paused", "1": "one has not, or there is an alarm"} | _ERROR,
    ),
    "reconciler fleet wait": Help(
        {"reconciler fleet wait 12": "wait until release 12 has reached its hosts"},
        {"0": "it has", "1": "its rollout has stopped, or a newer release has replaced it"}
        | _ERROR
        | {"130": "interrupted; the rollout goes on"},
    ),
    "reconciler fleet pause": Help(
        {
            "reconciler fleet pause": "tell no host anything for now",
            "reconciler fleet pause host-1": "leave one host alone, and let the rollout go on without it",
        },
        _DONE | _ERROR,
    ),
    "reconciler fleet resume": Help(
        {
            "reconciler fleet resume": "go on with a rollout that was paused or has stopped",
            "reconciler fleet resume host-1": "let a host take part again",
        },
        _DONE | _ERROR,
    ),
    "reconciler fleet rollback": Help(
        {"reconciler fleet rollback --waves 100% --wait 11": "give all hosts at once what release 11 said"},
        {"0": "done, or nothing to do", "1": "--wait: the rollout has stopped, or a newer release has replaced it"}
        | _ERROR
        | {"3": "refused for safety; nothing was changed"}
        | _INTERRUPTED,
    ),
    "reconciler fleet history": Help(
        {"reconciler fleet history": "what was pushed, when and by whom?"}, {"0": "done"} | _ERROR
    ),
    "reconciler fleet host": Help(
        {
            "reconciler fleet host add --cert host-1.pem host-1": "let a host into the fleet, by its certificate",
            "reconciler fleet host fence host-1": "it is off for good: its sandboxes may go to others",
        },
        _DONE | _ERROR | {"3": "refused for safety; nothing was changed"},
    ),
    "reconciler fleet host add": Help(
        {"reconciler fleet host add --cert host-1.pem --label zone=a host-1": "let it in, or renew its certificate"},
        _DONE | _ERROR,
    ),
    "reconciler fleet host remove": Help(
        {"reconciler fleet host remove host-1": "forget a host that has nothing left"},
        _DONE | _ERROR | {"3": "it still has sandboxes; nothing was changed"},
    ),
    "reconciler fleet host rename": Help(
        {"reconciler fleet host rename --cert host-2.pem host-1 host-2": "host-1 is called host-2 from now on"},
        _DONE | _ERROR | {"3": "the new name is taken; nothing was changed"},
    ),
    "reconciler fleet host fence": Help(
        {"reconciler fleet host fence host-1": "it is off, and stays so until it is added again"}, _DONE | _ERROR
    ),
    "reconciler fleet serve": Help(
        {
            "reconciler fleet serve --etcd https://192.0.2.1:2379 --listen 0.0.0.0:8443 --metrics 9101": "be a gate",
            "reconciler fleet serve --listen 0.0.0.0:8443 --ui 9181": "with a page of the fleet; ETCDCTL_… name etcd",
        },
        {"0": "ended by SIGTERM or SIGINT"} | _ERROR,
    ),
    "reconciler fleet agent": Help(
        {
            "sudo reconciler fleet agent --server https://gate-1:8443 https://gate-2:8443": "fill the watcher's folder",
        },
        {"0": "ended by SIGTERM or SIGINT"} | _ERROR,
    ),
    "reconciler fleet ca": Help(
        {
            "reconciler fleet ca init ca": "make the authorities, in the folder ca",
            "reconciler fleet ca host ca host-1": "make the certificate of a host",
        },
        _DONE | _ERROR,
    ),
    "reconciler fleet ca init": Help({"reconciler fleet ca init ca": "make both authorities"}, _DONE | _ERROR),
    "reconciler fleet ca host": Help(
        {"reconciler fleet ca host ca host-1": "make ca/hosts/host-1.crt and its key"}, _DONE | _ERROR
    ),
    "reconciler fleet ca gate": Help(
        {"reconciler fleet ca gate ca gate-1 gate-1.example 192.0.2.8": "hosts reach it by a name or an address"},
        _DONE | _ERROR,
    ),
    "reconciler fleet ca etcd": Help(
        {"reconciler fleet ca etcd ca etcd-1 192.0.2.1": "for its clients and for other members"}, _DONE | _ERROR
    ),
    "reconciler fleet ca client": Help(
        {"reconciler fleet ca client ca gate-1": "with it, a gate or an administrator reaches etcd"}, _DONE | _ERROR
    ),
    "reconciler kata-network": _KATA._replace(
        examples={
            "sudo reconciler kata-network list-routes web-1 --manifests web-1.yaml": "list our routes of a sandbox",
            "sudo reconciler kata-network add-route web-1 route.json": "add routes from a file of JSON",
        }
    ),
    "reconciler kata-network add-iface": _KATA._replace(
        examples={"sudo reconciler kata-network add-iface web-1 nic.json --manifests web-1.yaml": "plug in a NIC"}
    ),
    "reconciler kata-network del-iface": _KATA._replace(
        examples={
            'echo \'{"name": "eth1"}\' | sudo reconciler kata-network del-iface web-1': "unplug the NIC of this name"
        }
    ),
    "reconciler kata-network list-ifaces": _KATA._replace(
        examples={"sudo reconciler kata-network list-ifaces web-1": "list NICs, as JSON"}
    ),
    "reconciler kata-network add-route": _KATA._replace(
        examples={
            'echo \'{"dest": "10.8.0.0/16", "gateway": "172.17.0.1", "device": "eth0"}\' | '
            "sudo reconciler kata-network add-route web-1": "add a route"
        }
    ),
    "reconciler kata-network del-route": _KATA._replace(
        examples={
            'echo \'{"dest": "10.8.0.0/16"}\' | sudo reconciler kata-network del-route web-1': "delete routes of ours"
        }
    ),
    "reconciler kata-network list-routes": _KATA._replace(
        examples={"sudo reconciler kata-network list-routes web-1": "list our routes of the main table, as JSON"}
    ),
    "reconciler kata-ipvs": _KATA._replace(
        examples={
            "sudo reconciler kata-ipvs ipvsadm --parameters '-A -t 172.17.0.7:80 -s rr' web-1": "add a virtual service",
            "ipvsadm-save -n | sudo reconciler kata-ipvs ipvsadm --restore - web-1": "import a whole table",
        }
    ),
    "reconciler kata-ipvs ipvsadm": _KATA._replace(
        examples={
            "sudo reconciler kata-ipvs ipvsadm --parameters '-L -n' web-1": "list the table",
            "sudo reconciler kata-ipvs ipvsadm --restore rules web-1 --manifests web-1.yaml": "import a file of rules",
        }
    ),
    "reconciler kata-ipvs cleanup": _KATA._replace(
        examples={
            "sudo reconciler kata-ipvs cleanup --parameters '--orig-dst 172.17.0.7 --protonum tcp' web-1": (
                "forget the connections to an address"
            )
        }
    ),
}
