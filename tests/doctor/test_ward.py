"""What `doctor` looks at, what it says of what it cannot see, and that it changes nothing."""

from __future__ import annotations

import json

import pytest

from reconciler.wording import quote
from tests.doctor.ward import TIMER, Said, Ward, made
from tests.host import Host

NOBODY = 65534
# All of the host and of its namespaces by other eyes than ours, without what was only read. A stale neighbour is one
# that was heard, and not asked for.
EVERYTHING = """\
asked='nud permanent nud incomplete nud reachable nud delay nud probe nud failed'
for where in '' '-n a' '-n b' '-n c'; do
  for what in link 'address' 'route show table all' '-6 route show table all' rule '-6 rule' "neighbour show $asked"; do
    ip $where -d -j $what
    echo
  done
done
iptables-save -c
find /run /etc /srv -not -name '*.pyc' -printf '%p %T@ %s %m\\n' | sort
cat /proc/modules 2>/dev/null || true
"""


@pytest.fixture(scope="module")
def ward(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return made(host, tmp_path_factory.mktemp("manifests"))


def everything(ward: Ward) -> list[str]:
    return TIMER.sub("", ward.sh(EVERYTHING)).splitlines()


def _until(condition: str) -> str:
    """Return the script that waits for a condition, for a minute at most."""
    return f"for i in $(seq 600); do {condition} && break; sleep 0.1; done; {condition}"


def test_it_changes_nothing(ward: Ward) -> None:
    # As bad as it can be: what is broken must not be repaired either.
    ward.sh(
        "ip link set host-a down; ip -n b route del default; ip -n c link set lo down; rm -rf /run/reconciler/locks"
    )
    # Duplicate address detection ends by itself, and what was learned of neighbours becomes old by itself.
    ward.sh("ip neighbour flush all; for each in a b c; do ip -n $each neighbour flush all; done")
    ward.sh(_until("! (ip -6 address; for each in a b c; do ip -n $each -6 address; done) | grep -q tentative"))
    before = everything(ward)
    assert ward.doctor().code == 1
    assert ward.host.reconciler("doctor")[0] in {0, 1}
    assert everything(ward) == before
    ward.sh("ip link set host-a up; ip -n c link set lo up")
    ward.apply()
    ward.await_doctor(lambda said: not said.found)


def test_one_sandbox_by_its_id_without_a_manifest(ward: Ward) -> None:
    assert ward.doctor("a").data["sandboxes"] == 1
    assert ward.doctor("[ab]").data["sandboxes"] == 2
    ward.sh("ip link set host-a down")
    assert ("device-down", "a") in ward.doctor("a").found
    ward.sh("ip link set host-a up")
    ward.apply()
    code, printed = ward.host.reconciler("doctor", "nobody-has-this-id")
    assert (code, "nobody-has-this-id" in printed) == (2, True)


def test_the_text_has_the_meaning_and_the_command_of_each_finding(ward: Ward) -> None:
    ward.sh("ip -n a link set lo down")
    code, printed = ward.host.reconciler("doctor", f"{ward.manifests}/a.yaml")
    assert code == 1
    assert (
        "a: loopback-down: lo is down in a\n"
        "    Nothing in the sandbox reaches its own addresses, such as 127.0.0.1.\n"
        "    # Set lo up.\n"
        "    ip -n a link set dev lo up\n"
    ) in printed
    assert "\n1 finding, 4 notes: host, watcher and 1 sandbox.\n" in printed
    ward.sh("ip -n a link set lo up")


def test_notes_are_no_faults(ward: Ward) -> None:
    usual = {("watcher-absent", "watcher"), ("host-default-lacking", "host")}
    assert usual <= ward.doctor().noted
    ward.sh(
        "ip netns exec a sysctl -qw net.ipv4.icmp_echo_ignore_all=1; ip -n a link set eth0 mtu 1400; "
        "ip -n a neighbour replace 192.0.2.99 dev eth0 nud failed; "
        "ip netns exec a iptables -A INPUT -s 203.0.113.1 -j DROP; "
        "tc qdisc add dev host-b root tbf rate 8mbit burst 8k latency 50ms"
    )
    said = ward.doctor()
    noted = {(name, "a") for name in ("ping-ignored", "mtu-larger", "neighbour-silent", "firewall")}
    assert usual | noted | {("queue-limits", "b")} <= said.noted
    # The MTU is another one than that of the manifest.
    assert said.found == {("drift", "a")}
    ward.sh(
        "ip netns exec a sysctl -qw net.ipv4.icmp_echo_ignore_all=0; ip netns exec a iptables -F; "
        "tc qdisc del dev host-b root; ip -n a neighbour flush all"
    )
    ward.apply()
    assert ward.await_doctor(lambda said: not said.found).code == 0


def test_a_namespace_that_is_gone_and_a_manifest_that_is_wrong(ward: Ward) -> None:
    ward.sh(f"printf 'sandbox: x' > {ward.manifests}/x.yaml")
    ward.sh(
        f"sed 's/name: c/name: gone/; s/sandbox: c/sandbox: gone/' {ward.manifests}/c.yaml > {ward.manifests}/gone.yaml"
    )
    said = ward.doctor()
    ward.sh(f"rm {ward.manifests}/x.yaml {ward.manifests}/gone.yaml")
    assert {("manifest-wrong", f"{ward.manifests}/x.yaml"), ("sandbox-missing", "gone")} <= said.found
    assert said.commands("sandbox-missing")[0].startswith("ip netns add gone && ")
    # Those that are right were looked at nevertheless.
    assert said.data["sandboxes"] >= 3
    assert ward.doctor("/nowhere.yaml").code == 2


def test_what_only_root_sees_is_unknown_for_others(ward: Ward) -> None:
    ward.sh(f"chmod -R a+rX {quote(ward.manifests)} {quote(ward.manifests)}/..")
    words = (
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "reconciler",
        "doctor",
        "-o",
        "json",
    )
    done = ward.host.run("sh", "-c", f"cp -r {quote(ward.manifests)} /srv/m; chmod -R a+rX /srv")
    assert done.returncode == 0
    done = ward.host.run(*words, "/srv/m")
    said = Said(done.returncode, json.loads(done.stdout))
    assert (said.code, said.found) == (2, set())
    unknown = {(each["about"], each["what"]) for each in said.data["unknown"]}
    assert {("host", "what only root can see"), ("host", "its firewall")} <= unknown
    assert {(name, "the inside of the sandbox") for name in "abc"} <= unknown
    # What everybody can see is said.
    ward.sh("ip link set br0 down; ip link set host-a mtu 1400")
    assert ward.host.run(*words, "/srv/m").returncode == 2
    ward.sh("ip link set br0 up; ip link set host-a mtu 1500; ip address replace 2001:db8::1/64 dev br0 nodad")


def test_limits_and_rights_of_root(ward: Ward) -> None:
    words = f"reconciler doctor -o json {quote(ward.manifests)}"
    done = ward.host.run("sh", "-c", f"ulimit -n 100; {words}")
    assert ("descriptors-low", "host") in Said(done.returncode, json.loads(done.stdout)).found
    done = ward.host.run("sh", "-c", f"setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin {words}")
    said = Said(done.returncode, json.loads(done.stdout))
    assert {("rights-lacking", "host"), ("sandbox-failed", "a")} <= said.found


def test_devices_and_room_of_the_host(ward: Ward) -> None:
    ward.sh(
        "mount -t tmpfs tmpfs /dev/net; mount -o remount,size=1m /run; "
        "dd if=/dev/zero of=/run/big bs=1k 2>/dev/null || :"
    )
    ward.sh("cat > /srv/vm.yaml <<end\napiVersion: reconciler/v1\nsandbox: v\ndriver: {vm: {name: v}}\nend")
    said = ward.doctor("/srv/vm.yaml")
    ward.sh("umount /dev/net; rm /run/big; mount -o remount,size=50% /run")
    assert {("tun-missing", "host"), ("room-left", "host"), ("sandbox-missing", "v")} <= said.found
    assert ward.doctor().found == set()


def test_the_watcher(ward: Ward) -> None:
    ward.sh("mkdir -p /etc/reconciler && printf 'drivers: [netns, vm]\\n' > /etc/reconciler/policy.yaml")
    ward.sh(f"nohup reconciler watch {ward.manifests} >/srv/watch.log 2>&1 & echo $! > /srv/pid")
    ward.sh(_until("reconciler status >/dev/null 2>&1"))
    # Without a path, what is watched.
    said = ward.doctor("a")
    assert (said.found, said.data["sandboxes"]) == (set(), 1)
    code, printed = ward.host.reconciler("doctor", "-o", "json")
    assert (code, json.loads(printed)["sandboxes"]) == (0, 3)

    ward.sh("sleep 2.1; touch -d '+5 seconds' /etc/reconciler/policy.yaml")
    said = ward.doctor()
    assert said.found == {("watcher-policy", "watcher")}
    assert said.commands("watcher-policy") == [f"kill -HUP {ward.sh('cat /srv/pid').strip()}"]
    ward.sh("touch -d '-1 hour' /etc/reconciler/policy.yaml")

    ward.sh("ip netns del c; " + _until("! reconciler status >/dev/null"))
    assert {("sandbox-missing", "c"), ("watcher-state", "c")} <= ward.doctor().found
    ward.sh("kill -KILL $(cat /srv/pid); " + _until("! kill -0 $(cat /srv/pid) 2>/dev/null"))
    said = ward.doctor("a")
    assert said.found == {("watcher-gone", "watcher")}
