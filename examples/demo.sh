#!/bin/bash
# The main job, on a host of the demo's own: a network namespace, and for root a virtual machine with 20,000 IPVS rules.
#
# Network, processes and /run are the demo's own. So nothing of this host changes, and everything ends with the demo.
set -eu
examples=$(cd "$(dirname "$0")" && pwd)
# Seconds after which the demo gives up.
longest=600
bold='' plain=''
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
fail() {
    echo "demo: $*" >&2
    exit 1
}
# Print a command as it can be pasted into bash, and execute it.
run() { printf '$ %s\n' "$1" && eval "$1"; }
differs() {
    local code=0
    run "$1" || code=$?
    [ "$code" = 1 ] || fail "a difference was expected"
}
ask() {
    run "echo '$1' >&3; read -r -t 10 -u 3 answer; echo \"\$answer\"" || fail "the connection has ended"
    [ "$answer" = "$1" ] || fail "the server did not send back what it got"
}

# A log is emptied before its watcher starts in the background: else the next command may read that of the one before.
namespace() {
    say "1. A network namespace, with one end of a veth pair; the host keeps the other end"
    run 'ip netns add first; ip -n first link set dev lo up'
    run 'ip link add veth-first type veth peer name peer-first'
    run 'ip address add 192.0.2.1/24 dev peer-first; ip link set dev peer-first up'
    say "What should be there: the manifest"
    run 'cat 01-namespace.yaml'
    say "What is lacking, as commands"
    differs 'reconciler diff 01-namespace.yaml'
    say "Apply it"
    run 'reconciler apply 01-namespace.yaml'
    run 'ping -c 1 -W 5 192.0.2.10'
    run 'reconciler apply 01-namespace.yaml'
    say "From now on, repair what other programs change"
    run ': >watch.log; reconciler watch 01-namespace.yaml 2>>watch.log & watch=$!'
    run 'until grep converged watch.log; do sleep 0.1; done'
    run 'ip -n first address flush dev eth0'
    run 'until grep repaired watch.log; do sleep 0.1; done'
    run 'ip -n first -brief address show dev eth0; ip -n first route'
    run 'kill $watch; wait $watch'
}

machine() {
    # The kind of a device is read there, which is of one network.
    mount -t sysfs sysfs /sys
    say "2. A virtual machine without a network, and a TAP on the host"
    run 'reconciler sandbox start vm-1'
    run 'ip tuntap add dev tap-test mode tap'
    run 'ip address add 172.16.0.1/16 dev tap-test; ip link set dev tap-test up'
    say "The manifest"
    run 'cat vm.yaml vm.rules'
    say "The difference: a NIC is plugged into the running machine"
    differs 'reconciler diff vm.yaml'
    run 'reconciler apply vm.yaml'
    run 'ping -c 1 -W 5 172.16.0.3'
    run 'reconciler sandbox exec vm-1 -- ip route'
    say "20,000 IPVS rules: 5,000 services with 3 servers each"
    run "{ echo 80; seq 10001 14999; } | awk '{
    service = \"172.16.0.3:\" \$1
    print \"-A -t\", service, \"-s rr\"
    for (port = 8081; port <= 8083; port++) print \"-a -t\", service, \"-r 172.16.0.4:\" port, \"-m -w 100\"
}' >vm.rules"
    differs 'reconciler diff vm.yaml'
    run 'reconciler apply vm.yaml'
    say "One weight"
    run "sed -i '2s/-w 100/-w 50/' vm.rules"
    run 'reconciler apply -v vm.yaml'
    flush
    say "What is there now, as a manifest"
    run 'reconciler show vm.yaml | head -28'
    run 'kill $watch; wait $watch'
    run 'reconciler sandbox stop vm-1'
}

flush() {
    say "A client of one of these services; the servers send back what they get"
    run "reconciler sandbox exec vm-1 -- sh -c '
    for port in 8081 8082 8083; do nc -ll -p \$port -e cat >/dev/null 2>&1 </dev/null & done'"
    run 'until exec 3<>/dev/tcp/172.16.0.3/12345; do sleep 0.1; done 2>/dev/null'
    ask 'before the flush'
    run "reconciler sandbox exec vm-1 -- ipvsadm -Lnc"
    say "Another program flushes the table; the watcher restores it, and the connection goes on"
    run ': >watch.log; reconciler watch --log-level info vm.yaml 2>>watch.log & watch=$!'
    run 'until grep converged watch.log; do sleep 0.1; done'
    run 'reconciler sandbox exec vm-1 -- ipvsadm -C'
    run 'until grep repaired watch.log; do sleep 0.1; done'
    run "reconciler sandbox exec vm-1 -- sh -c 'tail -n +4 /proc/net/ip_vs | wc -l'"
    ask 'after the flush'
    run 'reconciler status'
}

# On the host of the demo's own: a folder for temporary files, and the parts to show.
if [ $# -gt 0 ]; then
    mount -t tmpfs -o mode=0755 tmpfs /run
    # The operator's policy is about this host, not about that one.
    if [ -d /etc/reconciler ]; then mount -t tmpfs -o mode=0755 tmpfs /etc/reconciler; fi
    # Nor is the history.
    history=/var/lib/reconciler
    mkdir -p "$history" 2>/dev/null || history=/var/lib
    mount -t tmpfs -o mode=0755 tmpfs "$history"
    ip link set dev lo up
    export TMPDIR=$1
    shift
    trap 'fail "something does not happen that should"' TERM
    { sleep "$longest" && kill $$; } &
    say "A folder to work in"
    run "cd \"\$(mktemp -d)\"; cp $(printf %q "$examples")/{01-namespace.yaml,vm.yaml,vm.rules} ."
    for part; do "$part"; done
    exit
fi

begin=$SECONDS
parts=(namespace machine)
own=(unshare --mount --net --pid --fork --kill-child --mount-proc)
left_out='' helps="run it outside of this container, or with the capability CAP_SYS_ADMIN"
if [ "$(id -u)" != 0 ]; then
    helps="run \`make demo\` as root"
    parts=(namespace)
    own+=(--user --map-root-user)
    left_out="This was without root, in a user namespace. Left out: the virtual machine, its NIC and its 20,000 IPVS rules.
Run \`make demo\` as root to see them."
fi
"${own[@]}" true || fail "here, this user may have no namespaces (see above): $helps"
if [ "$(id -u)" = 0 ]; then
    # That host reaches no archive of packages.
    python -c 'from reconciler.guest import image
image.prepare(report=lambda step: print(f"{step} …", flush=True))'
fi
work=$(mktemp -d) demo=''
finish() {
    # Everything on the host of the demo's own ends with this process, which obeys no other signal.
    if [ -n "$demo" ]; then kill -KILL "$demo" && wait "$demo" || true; fi 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM
"${own[@]}" bash "$0" "$work" "${parts[@]}" &
demo=$!
wait "$demo"
demo=''
say "That took $((SECONDS - begin)) s, and nothing of it is left. $left_out"
echo "\`reconciler\` is in $(dirname "$(command -v reconciler)"). To use it in this shell:"
echo "export PATH=$(dirname "$(command -v reconciler)"):\$PATH"
