#!/bin/bash
# A fleet on one host: three members of etcd, two gates, five hosts as network namespaces with a watcher each.
#
# Network, processes, /run and /var/lib/reconciler are the demo's own. So nothing of this host changes, and everything
# ends with the demo.
set -eu
# Seconds after which the demo gives up.
longest=300
bold='' plain=''
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
hosts='host-1 host-2 host-3 host-4 host-5'

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
fail() {
    echo "demo: $*" >&2
    exit 1
}
# Print a command as it can be pasted into bash, and execute it.
run() { printf '$ %s\n' "$1" && eval "$1"; }
# The same, with an exit code that is no mistake.
exits() {
    local code=0
    run "$2" || code=$?
    [ "$code" = "$1" ] || fail "exit code $1 was expected, not $code"
}

# Run a command on one of the hosts.
on() { nsenter --target="$(cat "$1.pid")" --mount --net --wd="$PWD" -- "${@:2}"; }
lacks() { ! on "$1" ip -n web route show type blackhole | grep -q "$2"; }
has() { on "$1" ip -n web route show type blackhole | grep -q "$2"; }
# Wait until a command succeeds.
await() {
    printf '$ until %s; do sleep 0.1; done\n' "$1"
    until eval "$1"; do sleep 0.1; done
}

# A host: its own network, its own /run and /var/lib, a sandbox called web, and a cable to the switch.
host() {
    ip netns add "$1"
    ip link add "v-$1" type veth peer name uplink netns "$1"
    ip link set dev "v-$1" master switch up
    ip -n "$1" link set dev lo up
    ip -n "$1" address add "$2" dev uplink
    ip -n "$1" link set dev uplink up
    ip netns exec "$1" unshare --mount bash -c '
        mount -t tmpfs -o mode=0755 tmpfs /run && mount -t tmpfs -o mode=0700 tmpfs /var/lib/reconciler
        ip netns add web && ip -n web link set dev lo up
        echo $$ >"$0.pid.new" && mv "$0.pid.new" "$0.pid" && exec sleep infinity' "$1" &
    disown
    until [ -e "$1.pid" ]; do sleep 0.05; done
}

watcher() {
    on "$1" reconciler watch --log-level info --cert "ca/hosts/$1.crt" --key "ca/hosts/$1.key" --ca ca/hosts-ca.crt \
        --fleet https://192.0.2.1:8443 https://192.0.2.1:8444 2>>"$1.log" &
    echo $! >"$1.watch"
    disown
}

member() {
    etcd --name "$1" --data-dir "$1" --logger zap --log-level error \
        --listen-client-urls "https://127.0.0.1:$2" --advertise-client-urls "https://127.0.0.1:$2" \
        --listen-peer-urls "https://127.0.0.1:$3" --initial-advertise-peer-urls "https://127.0.0.1:$3" \
        --initial-cluster etcd-1=https://127.0.0.1:2380,etcd-2=https://127.0.0.1:2382,etcd-3=https://127.0.0.1:2384 \
        --client-cert-auth --cert-file "ca/etcd/$1.crt" --key-file "ca/etcd/$1.key" --trusted-ca-file ca/etcd-ca.crt \
        --peer-client-cert-auth --peer-cert-file "ca/etcd/$1.crt" --peer-key-file "ca/etcd/$1.key" \
        --peer-trusted-ca-file ca/etcd-ca.crt 2>>"$1.log" &
    echo $! >"$1.pid"
    disown
}

members() { member etcd-1 2379 2380 && member etcd-2 2381 2382 && member etcd-3 2383 2384; }

gate() {
    reconciler fleet serve --listen "192.0.2.1:$2" --cert "ca/gates/$1.crt" --key "ca/gates/$1.key" \
        --ca ca/hosts-ca.crt --etcd-cert "ca/clients/$1.crt" --etcd-key "ca/clients/$1.key" 2>>"$1.log" &
    disown
}

manifest() {
    mkdir -p "tree/$1"
    printf '%s\n' 'apiVersion: reconciler/v1' 'sandbox: web' 'driver: {netns: {name: web}}' 'routes:' \
        "- {dest: $2, type: blackhole}" "${@:3}" >"tree/$1/web.yaml.new"
    # The ID of a sandbox is unique in the fleet.
    sed "s/^sandbox: web/sandbox: web-${1#host-}/" "tree/$1/web.yaml.new" >"tree/$1/web.yaml"
    rm "tree/$1/web.yaml.new"
}

commit() { git -C tree add --all && git -C tree -c user.name=demo -c user.email=demo@localhost commit --quiet -m "$1"; }

certificates() {
    say "1. Certificates: one authority for hosts and gates, another one for etcd"
    run 'reconciler fleet ca init ca'
    for each in etcd-1 etcd-2 etcd-3; do reconciler fleet ca etcd ca "$each" 127.0.0.1 >/dev/null; done
    for each in gate-1 gate-2; do
        reconciler fleet ca gate ca "$each" 192.0.2.1 >/dev/null
        reconciler fleet ca client ca "$each" >/dev/null
    done
    run 'reconciler fleet ca client ca admin'
    for each in $hosts; do reconciler fleet ca host ca "$each" >/dev/null; done
    export ETCDCTL_ENDPOINTS=https://127.0.0.1:2379,https://127.0.0.1:2381,https://127.0.0.1:2383
    export ETCDCTL_CACERT=ca/etcd-ca.crt ETCDCTL_CERT=ca/clients/admin.crt ETCDCTL_KEY=ca/clients/admin.key
}

begin() {
    say "2. Three members of etcd, two gates, five hosts: each host with a watcher, and none of them reaches etcd"
    members
    gate gate-1 8443
    gate gate-2 8444
    ip link add switch type bridge
    ip address add 192.0.2.1/24 dev switch
    ip link set dev switch up
    number=10
    for each in $hosts; do
        number=$((number + 1))
        host "$each" "192.0.2.$number/24"
        watcher "$each"
        run "reconciler fleet host add --cert ca/hosts/$each.crt $each"
    done
}

first() {
    say "3. The repository has a folder for each host; a push gives it to them in waves"
    git init --quiet tree
    for each in $hosts; do manifest "$each" 10.1.0.0/16; done
    commit 'the first release'
    run 'cat tree/host-1/web.yaml'
    run 'reconciler fleet push tree --waves 1,3,5 --wait'
    run 'reconciler fleet status'
    for each in $hosts; do has "$each" 10.1.0.0/16 || fail "$each lacks its route"; done
    run 'on host-1 ip -n web route show type blackhole'
}

failing() {
    say "4. The next release fails on one host: the rollout stops, and the hosts of later waves keep what they have"
    for each in $hosts; do manifest "$each" 10.2.0.0/16; done
    manifest host-2 10.2.0.0/16 '- {dest: 10.3.0.0/16, gateway: 192.0.2.99, device: lo}'
    commit 'a release that fails on host-2'
    exits 1 'reconciler fleet push tree --waves 1,3,5 --wait'
    exits 1 'reconciler fleet status'
    has host-5 10.1.0.0/16 || fail "host-5 was told"
}

rollback() {
    say "5. Back to the first release"
    release=$(reconciler fleet history | grep -o '\b1-[0-9a-f]*' | head -1)
    run "reconciler fleet rollback $release --waves 100% --allow-delete all --wait"
    for each in $hosts; do await "has $each 10.1.0.0/16 && lacks $each 10.2.0.0/16"; done
}

outage() {
    say "6. All of etcd is killed: what other programs change on a host is repaired as before"
    run 'kill -KILL $(cat etcd-?.pid)'
    run 'on host-3 ip -n web route flush type blackhole'
    await 'has host-3 10.1.0.0/16'
    say "Also if the watcher of that host is killed and started again meanwhile"
    run 'kill -KILL $(cat host-3.watch)'
    run 'on host-3 ip -n web route flush type blackhole'
    run 'watcher host-3'
    await 'has host-3 10.1.0.0/16'
    say "7. etcd is back: pushes reach the hosts again"
    members
    for each in $hosts; do manifest "$each" 10.4.0.0/16; done
    commit 'the last release'
    run 'reconciler fleet push tree --waves 1,5 --allow-delete all --wait'
    for each in $hosts; do has "$each" 10.4.0.0/16 || fail "$each lacks its route"; done
    run 'reconciler fleet history'
}

# On the host of the demo's own: a folder for temporary files.
if [ $# -gt 0 ]; then
    mount -t tmpfs -o mode=0755 tmpfs /run
    mkdir /run/netns
    mount --bind /run/netns /run/netns && mount --make-shared /run/netns
    if [ -d /etc/reconciler ]; then mount -t tmpfs -o mode=0755 tmpfs /etc/reconciler; fi
    mkdir -p /var/lib/reconciler && mount -t tmpfs -o mode=0700 tmpfs /var/lib/reconciler
    ip link set dev lo up
    cd "$1"
    trap 'fail "something does not happen that should"' TERM
    { sleep "$longest" && kill $$; } &
    for part in certificates begin first failing rollback outage; do "$part"; done
    exit
fi

start=$SECONDS
[ "$(id -u)" = 0 ] || fail "needs root: it makes network namespaces"
own=(unshare --mount --net --pid --fork --kill-child --mount-proc)
"${own[@]}" true || fail "here, nobody may have namespaces (see above)"
command -v etcd >/dev/null || fail "needs etcd: \`make setup\` gets it, or Debian's package etcd-server has it"
work=$(mktemp -d) demo=''
finish() {
    # Everything on the host of the demo's own ends with this process, which obeys no other signal.
    if [ -n "$demo" ]; then kill -KILL "$demo" && wait "$demo" || true; fi 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM
"${own[@]}" bash "$0" "$work" &
demo=$!
wait "$demo"
demo=''
say "That took $((SECONDS - start)) s, and nothing of it is left."
