#!/usr/bin/env bash
# Disks when memory is short: a machine that has far less than what is written to
# a file system on one disk and to swap on another. The target is outside of it.
# What iscsid needs is there beforehand, so nothing waits for itself.
# runs: 6.12/rxe
# memory: 512
# timeout: 900
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/disk.sh"
target=iqn.2026-11.example:outside

finish() {
	local status=$?
	trap - ERR
	set +e
	swapoff -a
	umount /tmp/full /tmp/fs 2>/dev/null
	(exit $status) # which disk_finish looks at
	disk_finish
}
trap finish EXIT

status() { awk -v n="$1:" '$1 == n { print $2 }' "/proc/$DAEMON/status"; }

# protected: nothing that iscsid has can be taken away, and the kernel writes to
# no disk when it looks for memory for one of its threads.
protected() {
	local task flags
	if grep 'not protected' "$DISK_RUN/log"; then fail "the log says that it is not protected"; fi
	[ "$(cat "$DISK_RUN/pid")" = "$DAEMON" ]
	[ "$(cat "/proc/$DAEMON/oom_score_adj")" = -1000 ]
	[ "$(status VmLck)" -gt 0 ]
	for task in "/proc/$DAEMON/task"/*; do
		flags=$(sed 's/.*) //' "$task/stat" 2>/dev/null | cut -d' ' -f7) || continue # it has ended
		[ $((flags & 0x80000)) -ne 0 ] || fail "thread ${task##*/} has the flags $(printf %x "$flags"), without PF_MEMALLOC_NOIO"
	done
	echo "   $(ls "/proc/$DAEMON/task" | wc -l) threads, VmRSS $(status VmRSS) KiB, VmLck $(status VmLck) KiB, VmSwap $(status VmSwap) KiB"
}

# settled: nothing of iscsid was swapped out, nothing was ended for want of
# memory, and no request has failed.
settled() {
	[ "$(status VmSwap)" -eq 0 ]
	if dmesg | grep -E 'Out of memory|I/O error|blocked for more than'; then fail "the kernel complains"; fi
	ctl -L -v | grep -A1 '^Errors' || true
}

# write_files N MIB: so many files at once, through the cache; their checksums.
write_files() {
	local i pids=()
	for i in $(seq "$1"); do
		head -c "${2}M" /dev/urandom | tee "/tmp/fs/$3$i" | sha256sum | sed "s|-|/tmp/fs/$3$i|" >"/tmp/sum.$3$i" &
		pids+=($!)
	done
	wait "${pids[@]}"
}

modprobe -a virtio_net ublk_drv ext4
wait_for 10 test -e /sys/class/net/eth0
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0 2>/dev/null || true
# As much as may be is dirty before anybody is made to wait.
echo 80 >/proc/sys/vm/dirty_ratio
echo 70 >/proc/sys/vm/dirty_background_ratio
DISK_OPTIONS=(-o device=ublk)
daemon_start
protected
ctl -A -t $target -p "$VM_TARGET" -w 60
first=$(disk_of $target 1) second=$(disk_of $target 2)
protected
free -m

echo "== a file system: 360 MiB through the cache"
mkdir -p /tmp/fs /tmp/full
mkfs.ext4 -q -F "$first"
mount "$first" /tmp/fs
begin=$SECONDS
write_files 4 90 a
echo "   written in $((SECONDS - begin)) s; dirty: $(grep Dirty: /proc/meminfo)"
protected
echo 3 >/proc/sys/vm/drop_caches
sha256sum --quiet -c /tmp/sum.a*
echo "   read back after $((SECONDS - begin)) s"
settled

echo "== its daemon dies while memory is full of what is to be written"
rm /tmp/fs/[abc]*
write_files 3 100 b &
io=$!
sleep 3
grep Dirty: /proc/meminfo
daemon_kill
sleep 1
daemon_start
wait $io
sync -f /tmp/fs
echo 3 >/proc/sys/vm/drop_caches
sha256sum --quiet -c /tmp/sum.b*
protected
settled

echo "== swap, with a file system beside it"
rm /tmp/fs/[abc]*
# As iscsid(8) says: without it this has stood still, with no request under way.
echo 65536 >/proc/sys/vm/min_free_kbytes
mkswap "$second" >/dev/null
swapon "$second"
mount -t tmpfs -o size=700m full /tmp/full
begin=$SECONDS
write_files 2 60 c &
io=$!
head -c 450M /dev/urandom | tee /tmp/full/x | sha256sum | sed 's|-|/tmp/full/x|' >/tmp/sum.x
wait $io
used=$(awk -v d="$second" '$1 == d { print $4 }' /proc/swaps)
echo "   $used KiB of swap in use after $((SECONDS - begin)) s"
[ "$used" -gt 100000 ]
protected
sha256sum --quiet -c /tmp/sum.x
sync -f /tmp/fs
sha256sum --quiet -c /tmp/sum.c*
echo "   compared after $((SECONDS - begin)) s"
settled
umount /tmp/full
swapoff "$second"

umount /tmp/fs
e2fsck -f -n "$first" >/dev/null
daemon_stop
