#!/busybox sh
# The first process of User-mode Linux. PACKAGES, REPOSITORY and PYTHON are words of its command line: paths of the host.
# All files of the host are there, and writing changes none of them.
/busybox mount -t hostfs host /host
/busybox insmod /host$PACKAGES/usr/lib/uml/modules/*/kernel/fs/overlayfs/overlay.ko
/busybox mount -t tmpfs memory /memory
/busybox mkdir /memory/upper /memory/work /memory/root
/busybox mount -t overlay root -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work /memory/root
cd /memory/root
/busybox mkdir -p usr/lib/modules etc/reconciler var/lib/reconciler mnt/first
/busybox mount --bind /host$PACKAGES/usr/lib/uml/modules usr/lib/modules
/busybox mount -t proc proc proc
/busybox mount -t sysfs sysfs sys
/busybox mount -t devtmpfs devices dev
# What runs on the host is none of its business.
for each in run etc/reconciler var/lib/reconciler; do
    /busybox mount -t tmpfs -o mode=755 memory $each
done
/busybox pivot_root . mnt/first
# The programs that the host may lack, with their libraries. The kernel loads modules by the same `modprobe`.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PACKAGES/sbin:$PACKAGES/bin:$PACKAGES/usr/sbin
export LD_LIBRARY_PATH=$PACKAGES/lib/x86_64-linux-gnu:$PACKAGES/usr/lib/x86_64-linux-gnu
ln -s $PACKAGES/bin/busybox /run/modprobe
ln -s /run/modprobe /usr/sbin/modprobe 2>/dev/null
echo /run/modprobe >/proc/sys/kernel/modprobe
mkdir /run/shared
mount --bind /mnt/first/shared /run/shared
# Most kernels have IPv6 built in; for this one it is a module, which namespaces need before they are made.
modprobe ipv6
ip link set lo up
cd $REPOSITORY
exec 3<>/dev/ttyS0
stty raw -echo <&3
exec 4<>/dev/ttyS1 5<>/dev/ttyS2
stty raw -echo <&4
stty raw -echo <&5
$PYTHON -m tests.uml.agent <&4 >&5 2>/dev/null &
exec 4<&- 5<&-
$PYTHON -m tests.uml.worker <&3 >&3
echo o >/proc/sysrq-trigger
sleep 10
