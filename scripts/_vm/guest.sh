# The VM's first process in the host's files: makes the machine ready, runs the command, and
# switches off. Called by the initramfs as: bash guest.sh ROOT MODULES
root=$1 modules=$2
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
share=/run/oomwatch-vm

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
# The checkout and the kernel may themselves lie below what is mounted over now.
exec 8<"$root" 9<"$modules"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /tmp
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
mkdir -p "$root" "$modules" 2>/dev/null
[[ $root -ef /proc/self/fd/8 ]] || mount --no-canonicalize --bind /proc/self/fd/8 "$root"
[[ $modules -ef /proc/self/fd/9 ]] || mount --no-canonicalize --bind /proc/self/fd/9 "$modules"
exec 8<&- 9<&-
mkdir -p "$share" /run/lock /dev/shm /dev/pts
mount -t 9p -o version=9p2000.L,trans=virtio,access=any,msize=512000 share "$share"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
for name in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    ln -sf "/proc/self/${name#*:}" "/dev/${name%:*}"
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
overlay() {
    local upper=/run/overlay/${1//\//_}
    mkdir -p "$upper" "$upper.work"
    mount -t overlay -o "lowerdir=$1,upperdir=$upper,workdir=$upper.work" overlay "$1"
}
# Daemons write here; what they write stays in the machine's memory.
overlay /etc
overlay /var
# For modprobe. A host that is itself a container may have no folder to mount this over.
[[ -d /usr/lib/modules ]] || { overlay /usr/lib && mkdir /usr/lib/modules; }
mount -t tmpfs tmpfs /usr/lib/modules
ln -s "$modules" "/usr/lib/modules/${modules##*/}"
busybox ip link set lo up
hostname oomwatch-vm

echo +memory >/sys/fs/cgroup/cgroup.subtree_control
# OOM reports belong in dmesg, not on the emulated serial line: there they are slow enough
# to delay the very kills under test.
dmesg -n 1

# A host that sees no such sign for minutes ends the machine. A node without memory must not kill it.
{
    echo -1000 >/proc/self/oom_score_adj
    exec busybox sh -c "while :; do : >$share/alive; sleep 5; done" <&- >&- 2>&-
} &

# The host's ends of the command's stdout and stderr. There may be no udev to name them.
for port in /sys/class/virtio-ports/*; do
    case $(<"$port/name") in
        out) out=/dev/${port##*/} ;;
        err) err=/dev/${port##*/} ;;
    esac
done

export HOME=/root TMPDIR=/tmp LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
export OOMWATCH_IN_VM=1 OOMWATCH_RESULTS=/tmp/results
export PATH=$root/.venv/bin:$PATH
mkdir "$OOMWATCH_RESULTS"
cd "$root" || exit
cut -d' ' -f1 /proc/uptime >"$share/booted"
# Through pipes: a port can be opened once only, and commands open /dev/stdout anew.
{ { bash "$share/command" </dev/null; echo $? >/run/status; } 2>&3 3>&- | cat >"$out"; } 3>&1 | cat >"$err"

cp -r "$OOMWATCH_RESULTS/." "$share/results/"
dmesg >"$share/dmesg"
# Last: the host takes a machine that ends without this file for one that broke.
cp /run/status "$share/status.new" && mv "$share/status.new" "$share/status"
sync
busybox poweroff -f
