#!/bin/sh
# The main job on a real virtual machine: boot, plug in a NIC, address, route, 20,000 IPVS rules, a flush, and the repair.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)

remove() {
    reconciler sandbox stop vm-1 2>/dev/null || true
    ip link del tap-test 2>/dev/null || true
    rm -rf "$work"
}
trap remove EXIT
trap 'exit 1' HUP INT TERM

bold= plain=
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() { printf '$ %s\n' "$*"; "$@"; }
differs() {
    run "$@" && { echo "a difference was expected" >&2; exit 1; }
    code=$?
    test "$code" = 1 || exit "$code"
}
within() { run reconciler sandbox exec vm-1 -- "$@"; }

if reconciler sandbox list | grep -q '^vm-1:' || ip link show tap-test >/dev/null 2>&1; then
    echo "The demo creates a sandbox vm-1 and a TAP tap-test, but one of them exists already: remove it and try again." >&2
    trap - EXIT
    exit 1
fi

say "A virtual machine without a network, and a TAP on the host"
run reconciler sandbox start vm-1
run ip tuntap add dev tap-test mode tap
run ip address add 172.16.0.1/16 dev tap-test
run ip link set dev tap-test up
cp vm.yaml vm.rules "$work"
cd "$work"

say "The manifest"
cat vm.yaml

say "The difference, as commands"
differs reconciler diff vm.yaml

say "Apply it"
run reconciler apply vm.yaml
within ip -brief address show dev eth-test
within ip route
run ping -c 1 -W 5 172.16.0.3

say "Again: nothing to do"
run reconciler apply vm.yaml

say "20,000 IPVS rules: 5,000 services with 3 servers each"
awk 'BEGIN {
    for (i = 0; i < 5000; i++) {
        service = sprintf("10.%d.%d.%d:80", 10 + i / 2500, i / 250 % 10, i % 250 + 1)
        printf "-A -t %s -s rr -p 3000\n", service
        for (j = 0; j < 3; j++) printf "-a -t %s -r 172.16.%d.%d:8080 -m -w 100\n", service, j + 1, i % 250 + 1
    }
}' >vm.rules
differs reconciler diff vm.yaml
run reconciler apply --allow-delete all vm.yaml 2>warnings || { cat warnings >&2; exit 1; }

say "One weight"
run sed -i '2s/-w 100/-w 50/' vm.rules
differs reconciler diff vm.yaml 2>>warnings
run reconciler apply vm.yaml 2>>warnings

say "Another program flushes the table"
within ipvsadm -C
differs reconciler diff vm.yaml 2>>warnings
run reconciler apply vm.yaml 2>>warnings
within sh -c 'ipvsadm -Sn | wc -l'

say "What is there now, as a manifest"
run reconciler show vm.yaml | head -40
