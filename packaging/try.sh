#!/bin/sh
# Try an installed reconciler: what it does without root and without a sandbox. The exit code is 0 if all of that is right.
#
#   try.sh RECONCILER EXAMPLES
set -eu
reconciler=$1 examples=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Run it. Its output is shown only if the exit code is not the expected one.
expect() {
    expected=$1 code=0
    shift
    "$reconciler" "$@" >"$scratch/output" 2>&1 || code=$?
    [ "$code" = "$expected" ] || {
        echo "try.sh: reconciler $*: the exit code is $code, not $expected:" >&2
        cat "$scratch/output" >&2
        exit 1
    }
}

"$reconciler" --version
for file in "$examples"/*.yaml; do
    expect 0 validate "$file"
done

# A saved `show` has the form of a manifest.
manifest() {
    echo 'apiVersion: reconciler/v1'
    echo 'sandbox: web-1'
    echo 'driver: {netns: {name: web-1}}'
    echo 'interfaces: [{name: eth0, device: tap0, hwAddr: "02:42:20:6f:a3:69", mtu: 1500, addresses: [192.0.2.10/24]}]'
    echo "routes: [{dest: $1, gateway: 192.0.2.1, device: eth0}]"
}
manifest 198.51.100.0/24 >"$scratch/before.yaml"
manifest 203.0.113.0/24 >"$scratch/after.yaml"
expect 0 diff --observed "$scratch/before.yaml" "$scratch/before.yaml"
expect 1 diff --observed "$scratch/before.yaml" "$scratch/after.yaml"
grep -q '+ ip route add 203.0.113.0/24 via 192.0.2.1 dev eth0' "$scratch/output" || {
    echo "try.sh: diff printed another plan:" >&2
    cat "$scratch/output" >&2
    exit 1
}
