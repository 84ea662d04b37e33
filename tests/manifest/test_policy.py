"""The file of the operator's policy: what is wrong with it, who may write it, and what it decides about."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from reconciler.cli.main import main
from reconciler.errors import HostError, ManifestError, RefusedError
from reconciler.manifest import policy
from reconciler.manifest.allow import canonical, is_below, process_of, refusals
from reconciler.manifest.finding import Path as Steps
from reconciler.manifest.finding import path_text
from reconciler.manifest.schema import MANIFEST, POLICY, schema_text
from reconciler.model.attribute import ATTRIBUTES
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Sandbox, VmAddress
from tests.allowed import write_policy

SCHEMA: dict[str, Any] = json.loads(schema_text(POLICY))

# Each field of a manifest that names something of the host, and the fields of the policy that decide about it.
OF_HOST = {
    "driver": ["drivers"],
    "driver.netns": ["drivers"],
    "driver.netns.name": ["namespaces.folders"],
    "driver.netns.path": ["namespaces.folders", "namespaces.processes"],
    "driver.netns.pid": ["namespaces.processes"],
    "driver.vm": ["drivers"],
    "driver.vm.name": ["sockets"],
    "driver.vm.qmp": ["sockets"],
    "driver.vm.agent": ["sockets", "vsock"],
    "driver.libvirt": ["drivers"],
    "driver.libvirt.domain": ["libvirtDomains"],
    "driver.libvirt.uri": ["libvirtUris"],
    "driver.libvirt.guestAgent": ["pushAgent"],
    "driver.kata": ["drivers"],
    "driver.vm.guestAgent": ["pushAgent", "sockets"],
    "driver.kata.runtime": ["runtimes"],
    "interfaces[0].device": ["devices", "physicalDevices"],
    "interfaces[0].vhostUserSocket": ["sockets"],
    "ipvs.rulesFile": ["rulesFiles"],
    "checks[0].from": ["hostChecks"],
}
# The others of these sections name nothing of the host: a sandbox, a container, what is in the sandbox, or a value.
HARMLESS = {
    "",
    *("apiVersion", "sandbox", "paused", "driver.kata.id", "sysctls", "interfaces", "interfaces[0]", "neighbours"),
    *(
        f"interfaces[0].{name}"
        for name in ("name", "hwAddr", "mtu", "state", "addresses", "addresses[0]", "queues", "sysctls")
    ),
    *(f"interfaces[0].{name}" for name in ("altnames", "altnames[0]", *(each.field for each in ATTRIBUTES))),
    # Made in the sandbox, on what is there.
    *(f"interfaces[0].{name}" for name in ("vlan", "bridge", "bond", "vrf", "macvlan", "dummy", "master")),
    *(
        f"interfaces[0].addresses[0].{name}"
        for name in ("address", "peer", "dad", "label", "scope", "metric", "noprefixroute")
    ),
    *("neighbours[0]", *(f"neighbours[0].{name}" for name in ("address", "device", "hwAddr", "proxy", "router"))),
    *("routes", "routes[0]", "routes[0].nexthops", "routes[0].nexthops[0]"),
    *(f"routes[0].{name}" for name in ("dest", "gateway", "device", "onLink", "type", "table", "metric", "source")),
    *("routes[0].mtu", "routes[0].scope", "routes[0].pref", "routes[0].tos", "routes[0].features"),
    "routes[0].features[0]",
    *(
        f"routes[0].{name}"
        for name in ("mtuLock", "advmss", "window", "hoplimit", "initcwnd", "initrwnd", "rtoMin", "quickack", "congctl")
    ),
    *(f"routes[0].nexthops[0].{name}" for name in ("gateway", "device", "weight", "onLink")),
    *("rules", "rules[0]"),
    *(f"rules[0].{name}" for name in ("priority", "family", "from", "to", "iif", "oif", "fwmark", "ipproto", "sport")),
    *(f"rules[0].{name}" for name in ("dport", "uidrange", "tos", "invert", "table", "l3mdev", "goto", "action")),
    "rules[0].suppressPrefixlength",
    *("ipvs", "ipvs.timeouts", "ipvs.sysctls", "ipvs.exclude", "ipvs.exclude[0]", "ipvs.exclude[0].fwmark"),
    *("ipvs.drain", "ipvs.services", "ipvs.services[0]", "ipvs.services[0].servers", "ipvs.services[0].servers[0]"),
    *("checks", "checks[0]"),
    *(f"checks[0].{name}" for name in ("ping", "tcp", "http", "route", "connects", "connects.service", "device")),
    *(f"checks[0].{name}" for name in ("expect", "timeout", "count", "required", "onRepair")),
    *("ipvs.services[0].schedulerFlags[0]", "ipvs.services[0].ignore[0]", "ipvs.rules", "ipvs.guard"),
}
# Settings of the sandbox's kernel, of which the schema has a closed list, and values of rules of IPVS.
VALUES = re.compile(
    r"(sysctls|interfaces\[0\]\.sysctls|ipvs\.(timeouts|sysctls))\.[a-z0-9_.]+"
    r"|interfaces\[0\]\.(vlan|bridge|bond|vrf|macvlan)\.\w+"
    r"|ipvs\.services\[0\]\.(tcp|udp|sctp|fwmark|family|scheduler|schedulerFlags|persistent|netmask|persistenceEngine"
    r"|onePacket|ignore)"
    r"|ipvs\.services\[0\]\.servers\[0\]\.(address|weight|forward|(upper|lower)Threshold|tun(Type|Port|Checksum))"
)


def fields(schema: dict[str, Any], at: Any, path: Steps = ()) -> Iterator[str]:
    """Yield the fields of a schema."""
    resolved = schema["$defs"][at["$ref"].removeprefix("#/$defs/")] | at if "$ref" in at else at
    yield path_text(path)
    for name, below in resolved.get("properties", {}).items():
        if below.get("not") != {}:
            yield from fields(schema, below, (*path, name))
    if "items" in resolved:
        yield from fields(schema, resolved["items"], (*path, 0))


def test_each_field_of_a_manifest_is_classified() -> None:
    """A new one that names something of the host needs a place in the policy; any other one, a place in HARMLESS."""
    manifest = json.loads(schema_text(MANIFEST))
    found = [each for each in fields(manifest, manifest) if not VALUES.fullmatch(each)]
    assert [each for each in found if each not in OF_HOST.keys() | HARMLESS] == []
    assert OF_HOST.keys() | HARMLESS == set(found)
    decided = {name for each in OF_HOST.values() for name in each}
    own = {each for each in fields(SCHEMA, SCHEMA) if each and not each.endswith("[0]")}
    assert decided | {"namespaces"} == own


def test_the_schema_is_a_good_one_and_described() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for part in [SCHEMA, *SCHEMA["properties"].values(), *SCHEMA["$defs"].values()]:
        assert part["description"]
        for example in part["examples"]:
            alone = copy.deepcopy(part) | {"$defs": SCHEMA["$defs"]}
            assert list(Draft202012Validator(alone).iter_errors(example)) == []


def test_the_defaults_of_the_schema_are_those_of_the_policy(tmp_path: Path) -> None:
    defaults = {name: part["default"] for name, part in SCHEMA["properties"].items()}
    found = policy.read(write_policy(tmp_path / "p", **defaults), [])
    assert found == Policy(file=found.file, lines=found.lines)
    for name, value in defaults["namespaces"].items():
        assert SCHEMA["properties"]["namespaces"]["properties"][name]["default"] == value


def test_all_fields(tmp_path: Path) -> None:
    file = write_policy(
        tmp_path / "p",
        drivers=["netns"],
        namespaces={"folders": ["/var/run/tenants/", "/srv//ns"], "processes": False},
        sockets=["/srv/./sockets"],
        vsock=[3, "100-199"],
        runtimes=["/opt/kata/bin/kata-runtime"],
        libvirtUris=["qemu+unix:///system?socket=/srv/libvirt-sock"],
        libvirtDomains={"web-*": ["web-*", "edge"]},
        devices={"web-*": ["tap-*"]},
        physicalDevices={"edge-1": ["eth1"]},
        rulesFiles=["/srv/ipvs"],
        pushAgent=["web-*"],
        hostChecks=["192.0.2.0/24"],
    )
    assert policy.read(file, []) == Policy(
        file=file,
        lines={name: policy.read(file, []).lines[name] for name in SCHEMA["properties"]},
        drivers=("netns",),
        folders=("/run/tenants", "/srv/ns"),
        processes=False,
        sockets=("/srv/sockets",),
        vsock=((3, 3), (100, 199)),
        runtimes=("/opt/kata/bin/kata-runtime",),
        libvirt_uris=("qemu+unix:///system?socket=/srv/libvirt-sock",),
        libvirt_domains={"web-*": ("web-*", "edge")},
        devices={"web-*": ("tap-*",)},
        physical_devices={"edge-1": ("eth1",)},
        rules_files=("/srv/ipvs",),
        push=("web-*",),
        host_checks=("192.0.2.0/24",),
    )


WRONG = [
    ("driver: [netns]", '1:1: driver: unknown field; did you mean "drivers"?'),
    (
        "drivers: [netns, docker]",
        '1:18: drivers[1]: "docker" is not valid; expected a driver: one of netns, vm, libvirt, kata',
    ),
    ("drivers: netns", '1:10: drivers: "netns" is text; expected a list of the drivers that manifests may have'),
    ("drivers:", "1:9: drivers: nothing is given; expected a list of the drivers that manifests may have"),
    (
        "namespaces: {folders: [run/netns]}",
        '1:24: namespaces.folders[0]: "run/netns" is not valid; expected the absolute path of a folder, without',
    ),
    ("namespaces:\n  processes: yes\n", '2:14: namespaces.processes: "yes" is text; expected true or false: whether'),
    ("namespaces: {names: [a]}", "1:14: namespaces.names: unknown field; expected one of: folders, processes"),
    ("vsock: [0]", "1:9: vsock[0]: 0 is below the minimum of 1"),
    ("vsock: [3-]", '1:9: vsock[0]: "3-" is not valid; expected a vsock CID from 1 to 4294967294, or a range such as'),
    ("runtimes: [kata-runtime]", '1:12: runtimes[0]: "kata-runtime" is not valid; expected the absolute path of'),
    ("devices: [tap-*]", "1:10: devices: a list of 1 item; expected a mapping of patterns of sandbox IDs to"),
    ("devices: {'web 1': [a]}", '1:10: devices: "web 1" is not valid; expected a pattern of sandbox IDs: 1 to 64'),
    ("devices: {web-1: tap}", '1:18: devices.web-1: "tap" is text; expected a list of patterns of devices'),
    ("drivers: [netns]\ndrivers: [vm]\n", '2:1: duplicate key "drivers"'),
    ("drivers: [netns\n", "1:10: a `,` or `]` is missing before the end, in the list that begins with `[` in line 1"),
    ("drivers: !x [netns]\n", "1:10: tags are not supported (!x)"),
    ("sockets: *x\n", "1:10: alias *x refers to no complete value above it"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text for text, _ in WRONG])
@pytest.mark.parametrize("command", ["validate", "diff", "apply", "show"])
def test_what_is_wrong_is_told_as_in_a_manifest(
    command: str, text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy"
    file.write_text(text)
    assert main([command, "--policy", str(file), "none.yaml"]) == 2
    assert capsys.readouterr().err.startswith(f"{file}:{said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; write what differs from the defaults, or delete the file to have the defaults"),
        ("# nothing\n", "is empty; write what differs from the defaults, or delete the file to have the defaults"),
        ("drivers: [vm]\n---\ndrivers: [netns]\n", "contains several documents; a policy is one"),
    ],
)
def test_a_text_that_is_no_policy(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "policy"
    file.write_text(text)
    with pytest.raises(ManifestError, match=re.escape(f"{file}: {said}")):
        policy.read(str(file), [])


def test_without_the_default_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "POLICY_FILE", str(tmp_path / "none" / "policy.yaml"))
    assert policy.read(None, []) == Policy(file=str(tmp_path / "none" / "policy.yaml"))
    with pytest.raises(HostError, match="the policy cannot be read: No such file or directory"):
        policy.read(str(tmp_path / "none" / "policy.yaml"), [])
    (tmp_path / "link").symlink_to("none")
    (tmp_path / "file").touch()
    # What should be there, and is not, is not what an operator wants.
    for path, reason in (
        ("link", "No such file"),
        ("link/policy.yaml", "No such file"),
        ("file/policy.yaml", "Not a dir"),
    ):
        monkeypatch.setattr(policy, "POLICY_FILE", str(tmp_path / path))
        with pytest.raises(HostError, match=f"the policy cannot be read: {reason}"):
            policy.read(None, [])


def test_a_folder_that_cannot_be_searched_does_not_mean_the_defaults(root: None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Only root may search it.
        script = f"""
import os
from reconciler.manifest import policy
policy.POLICY_FILE = {folder + "/policy.yaml"!r}
os.setuid(65534)
policy.read(None, [])
"""
        ran = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1].endswith(
        "policy.yaml: the policy cannot be read: Permission denied; run this as root"
    )


@pytest.mark.parametrize("mode", [0o646, 0o664, 0o777])
def test_a_file_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    file = Path(write_policy(tmp_path / "policy", drivers=["netns"]))
    file.chmod(mode)
    with pytest.raises(RefusedError, match=f"{file} is writable by others \\(mode 0{mode:o}\\)"):
        policy.read(str(file), [])


@pytest.mark.parametrize("mode", [0o757, 0o775, 0o777])
def test_a_file_below_a_folder_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    folder = tmp_path / "open" / "inner"
    folder.mkdir(parents=True)
    file = write_policy(folder / "policy", drivers=["netns"])
    (tmp_path / "open").chmod(mode)
    with pytest.raises(RefusedError, match=f"{tmp_path}/open is writable by others"):
        policy.read(file, [])
    # In such a folder, others can replace what is theirs, and nothing else.
    (tmp_path / "open").chmod(0o1777)
    assert policy.read(file, []).drivers == ("netns",)


def test_a_file_of_another_user_is_refused(root: None, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    file = write_policy(folder / "policy", drivers=["netns"])
    link = tmp_path / "link"
    link.symlink_to(file)
    os.chown(file, 4711, 4711)
    for each in (file, str(link)):
        with pytest.raises(RefusedError, match=f"{file} belongs to user 4711"):
            policy.read(each, [])
    os.chown(file, 0, 0)
    os.chown(folder, 4711, 4711)
    for each in (file, str(link)):
        with pytest.raises(RefusedError, match=f"{folder} belongs to user 4711"):
            policy.read(each, [])
    os.chown(folder, 0, 0)
    assert policy.read(str(link), []).drivers == ("netns",)
    # A link in a folder of all users.
    folder.chmod(0o1777)
    os.rename(link, folder / "link")
    os.lchown(folder / "link", 4711, 4711)
    with pytest.raises(RefusedError, match=f"{folder}/link belongs to user 4711"):
        policy.read(str(folder / "link"), [])


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_regular_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "policy"
    if kind == "pipe":
        os.mkfifo(file)
        file.chmod(0o600)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/null")
    with pytest.raises((HostError, RefusedError)):
        policy.read(str(file), [])


def test_no_policy_is_among_the_manifests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    file = write_policy(folder / "policy", drivers=["netns"])
    (tmp_path / "link").symlink_to(folder)
    for named, at in ((file, folder), (f"{tmp_path}/link/policy", folder), (file, tmp_path / "link")):
        assert main(["validate", "--policy", named, str(at)]) == 2
        assert f"it is in {folder}, as manifests are, whose authors must not change it" in capsys.readouterr().err
    # A checkout by root belongs to root, whoever has committed it. But an operator may name a file of it.
    (folder / ".git").mkdir()
    (folder / "below").mkdir()
    monkeypatch.setattr(policy, "POLICY_FILE", file)
    for below in ("below", "below/a.yaml", "a.yaml"):
        assert policy.read(file, [str(folder / below)]).drivers == ("netns",)
        assert main(["validate", str(folder / below)]) == 2
        assert f"it is in {folder}, as manifests are" in capsys.readouterr().err


def test_no_variable_of_the_environment_sets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_policy(tmp_path / "policy", drivers=["kata"])
    monkeypatch.setattr(policy, "POLICY_FILE", str(tmp_path / "none"))
    for name in ("RECONCILER_POLICY", "POLICY", "POLICY_FILE"):
        monkeypatch.setenv(name, file)
    assert policy.read(None, []) == Policy(file=str(tmp_path / "none"))
    for source in Path(policy.__file__).parents[1].rglob("*.py"):
        for name in re.findall(r"environ(?:\.get)?[\[(]\s*\"(\w+)\"|getenv\(\"(\w+)\"", source.read_text()):
            assert "POLICY" not in "".join(name), source


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("/var/run/netns/a", "/run/netns/a"),
        ("//run//netns/./a", "/run/netns/a"),
        ("/run/netns/../x", "/run/x"),
        ("/var/running/x", "/var/running/x"),
        ("/var/run", "/run"),
        ("/", "/"),
    ],
)
def test_a_path_has_one_spelling(path: str, same: str) -> None:
    assert canonical(path) == same


def test_what_is_below_a_folder() -> None:
    assert is_below("/run/netns/a", ["/srv", "/run/netns"])
    assert is_below("/var/run/netns/a", ["/run"])
    assert is_below("/a", ["/"])
    for path in ("/run/netns", "/run/netns2/a", "/run/netns/../a", "/run/netns/..", "/srv"):
        assert not is_below(path, ["/run/netns", "/srv"])


@pytest.mark.parametrize(
    ("path", "process"),
    [
        ("/proc/1/ns/net", "1"),
        ("/proc/self/ns/net", "self"),
        ("/proc//thread-self/./ns/net", "thread-self"),
        ("/run/../proc/12/task/13/ns/net", "12"),
        ("/proc/12/ns/mnt", None),
        ("/proc/12/root/run/netns/a", None),
        ("/proc/12/fd/3", None),
        ("/run/netns/a", None),
    ],
)
def test_a_path_that_is_that_of_a_process(path: str, process: str | None) -> None:
    assert process_of(path) == process


def test_the_policy_of_the_docs_is_valid_and_its_table_right(repository: Path, tmp_path: Path) -> None:
    text = (repository / "docs" / "security.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    file = tmp_path / "policy"
    file.write_text(block)
    assert policy.read(str(file), []).physical_devices == {"edge-1": ("eth1",)}
    rows = dict(re.findall(r"^\| `(\w+(?:\.\w+)?)` \| `(.*?)` \|", text, re.MULTILINE))
    shown: dict[str, Any] = {}
    for name, default in rows.items():
        above, _, below = name.rpartition(".")
        (shown.setdefault(above, {}) if above else shown)[below] = yaml.safe_load(default)
    assert shown == {name: part["default"] for name, part in SCHEMA["properties"].items()}


@pytest.mark.parametrize("cid", [1, 2, 3, 4294967294])
def test_a_cid_is_that_of_a_machine_unless_the_operator_says_otherwise(cid: int) -> None:
    sandbox = Sandbox(id="pod", driver=VmAddress(agent=f"vsock://{cid}:200"))
    allow = f'to allow it, add to /etc/reconciler/policy.yaml: vsock: ["3-4294967294", {cid}]'
    expected = [f"no machine with the vsock CID {cid} may be a sandbox; {allow}"] if cid < 3 else []
    assert [each.message for each in refusals(sandbox, Policy())] == expected
    assert refusals(sandbox, Policy(vsock=((cid, cid),))) == []
