#!/bin/sh
# The main job on a real namespace with a real TAP: plan, apply, apply again, change one route, apply that.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)

remove() {
    ip netns del web-1 2>/dev/null || true
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

if ip netns list | grep -qw web-1 || ip link show tap-test >/dev/null 2>&1; then
    echo "this demo makes a namespace web-1 and a TAP tap-test of its own, and they exist already" >&2
    trap - EXIT
    exit 1
fi

say "A sandbox without a network, and a TAP on the host"
run ip netns add web-1
run ip tuntap add dev tap-test mode tap
cp web-1.yaml "$work/web-1.yaml"
cd "$work"

say "The manifest"
cat web-1.yaml

say "What has to be done"
differs reconciler diff web-1.yaml

say "Do it"
run reconciler apply web-1.yaml
run ip -n web-1 -brief address
run ip -n web-1 route

say "Again: nothing to do"
run reconciler apply web-1.yaml

say "Edit one route: one operation"
run sed -i 's/gateway: 172.16.0.2/gateway: 172.16.0.9/' web-1.yaml
differs reconciler diff web-1.yaml
run reconciler apply web-1.yaml

say "What the kernel has now, as a manifest"
run reconciler show web-1.yaml
