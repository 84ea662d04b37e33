#!/bin/bash
# A domain of libvirt gets a network, by a libvirtd of the demo's own: nothing of this host changes.
set -eu
longest=600
bold='' plain=''
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
fail() {
    echo "demo-libvirt: $*" >&2
    exit 1
}
# Print a command as it can be pasted into bash, and execute it.
run() { printf '$ %s\n' "$1" && eval "$1"; }

# Folders, users and a libvirtd that nobody else sees.
begin() {
    for folder in run var/lib/libvirt var/log/libvirt var/cache/libvirt etc/libvirt; do
        mkdir -p "/$folder" && mount -t tmpfs -o mode=0755 tmpfs "/$folder"
    done
    if [ -d /etc/reconciler ]; then mount -t tmpfs -o mode=0755 tmpfs /etc/reconciler; fi
    mount -t sysfs sysfs /sys
    ip link set dev lo up
    cp /etc/passwd /etc/group /etc/libvirt
    grep -q ^libvirt-qemu: /etc/passwd || echo libvirt-qemu:x:64055:64055::/nonexistent:/bin/false >>/etc/libvirt/passwd
    grep -q ^libvirt-qemu: /etc/group || echo libvirt-qemu:x:64055: >>/etc/libvirt/group
    grep -q ^kvm: /etc/group || echo kvm:x:64056: >>/etc/libvirt/group
    for name in passwd group; do mount --bind "/etc/libvirt/$name" "/etc/$name"; done
    printf '%s\n' 'security_driver = "none"' 'user = "root"' 'group = "root"' 'dynamic_ownership = 0' 'remember_owner = 0' \
        'cgroup_controllers = []' 'namespaces = []' 'stdio_handler = "file"' >/etc/libvirt/qemu.conf
    printf '%s\n' 'auth_unix_rw = "none"' 'unix_sock_group = "root"' >/etc/libvirt/libvirtd.conf
    libvirtd --timeout 0 >/dev/null 2>&1 &
    until virsh list >/dev/null 2>&1; do sleep 0.1; done
    cat >domain.xml <<EOF
<domain type='qemu'>
  <name>web-1</name><memory unit='MiB'>512</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>$kernel</kernel><initrd>$initramfs</initrd>
  <cmdline>console=ttyS0 quiet</cmdline></os>
  <features><acpi/></features><cpu mode='maximum'/>
  <devices>
    <controller type='pci' index='1' model='pcie-root-port'/><controller type='pci' index='2' model='pcie-root-port'/>
    <controller type='virtio-serial' index='0'/><controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
</domain>
EOF
    cat >web-1.yaml <<EOF
apiVersion: reconciler/v1
sandbox: web-1
driver: {libvirt: {domain: web-1}}
interfaces:
- {name: eth1, device: tap-web-1, hwAddr: "02:42:20:6f:a3:69", mtu: 1500, addresses: [192.0.2.10/24]}
EOF
}

demo() {
    say "A domain of libvirt with neither a NIC nor a channel for the agent, and a TAP on the host"
    run 'virsh define domain.xml; virsh start web-1'
    run 'ip tuntap add dev tap-web-1 mode tap'
    run 'ip address add 192.0.2.1/24 dev tap-web-1; ip link set dev tap-web-1 up'
    say "What should be there: the manifest"
    run 'cat web-1.yaml'
    say "What is lacking, as commands; the first look waits until the agent in the guest has started"
    run 'until reconciler diff web-1.yaml >diff.txt 2>/dev/null || [ -s diff.txt ]; do sleep 0.5; done; cat diff.txt'
    say "Apply it"
    run 'reconciler apply web-1.yaml'
    run 'ping -c 1 -W 5 192.0.2.10'
    run "virsh dumpxml web-1 | grep -e ua-reconciler -e reconciler.agent"
    run "virsh dumpxml --inactive web-1 | grep -c -e ua-reconciler -e reconciler.agent || true"
    say "From now on, keep it so, also when the domain is started anew"
    run ': >watch.log; reconciler watch web-1.yaml 2>>watch.log & watch=$!'
    run 'until grep converged watch.log; do sleep 0.1; done'
    run 'virsh destroy web-1; until grep waiting watch.log; do sleep 0.1; done'
    run 'virsh start web-1; until ping -c 1 -W 1 192.0.2.10 >/dev/null; do sleep 0.5; done; ping -c 1 192.0.2.10'
    run 'reconciler status'
    run 'kill $watch; wait $watch'
    say "When nothing is wanted any more, nothing is left"
    run "sed -i '/^interfaces/,\$d' web-1.yaml; echo 'interfaces: []' >>web-1.yaml"
    run 'reconciler apply --allow-delete all web-1.yaml'
    run "virsh dumpxml web-1 | grep -c -e ua-reconciler -e reconciler.agent || true"
    run 'virsh destroy web-1; virsh undefine web-1'
}

# On the host of the demo's own.
if [ $# -gt 0 ]; then
    cd "$1" && kernel=$2 initramfs=$3
    trap 'fail "something does not happen that should"' TERM
    { sleep "$longest" && kill $$; } &
    begin
    demo
    exit
fi

[ "$(id -u)" = 0 ] || fail 'this needs root: run `make demo-libvirt` as root'
read -r kernel initramfs < <(python -c 'from reconciler.guest import image
built = image.prepare()
print(built.kernel, built.initramfs)')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
script=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
unshare --mount --net --pid --fork --kill-child --mount-proc bash "$script" "$work" "$kernel" "$initramfs"
