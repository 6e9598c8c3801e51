#!/usr/bin/env bash
# What a disk as /dev/nbdN must do, by TCP from LIO and tgt: verified I/O of all
# kinds, discard, zeroes, partitions, dm-crypt, file systems; blocks of 4 KiB, over
# 2 TiB, read-only; what the kernel is told of the disk; a size that changes while
# the disk is mounted; removal while it is in use, and by force.
# runs: */rxe
# timeout: 1500
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/disk.sh"
DISK_OPTIONS=(-o device=nbd)
lio=iqn.2026-11.example:lio tgt=iqn.2026-11.example:tgt protected=iqn.2026-11.example:ro
mib=$((1 << 20))

# is DEVICE NAME VALUE: so the kernel was told.
is() {
	local found
	found=$(cat "/sys/block/${1##*/}/$2")
	[ "$found" = "$3" ] || fail "$1: $2 is $found, not $3"
}

lio_up() {
	local thin=(emulate_tpu=1 emulate_tpws=1 emulate_write_cache=1)
	lio_init
	mkdir -p /tmp/luns
	lio_target $lio \
		"$(lio_file thin /tmp/luns/thin $((512 * mib)) "${thin[@]}" is_nonrot=1)" \
		"$(lio_file native /tmp/luns/native $((512 * mib)) "${thin[@]}" block_size=4096)" \
		"$(lio_file large /tmp/luns/large $((3 << 40)) "${thin[@]}")" \
		"$(lio_ram plain 64)"
	lio_portal $lio 127.0.0.1:3270
	# A disk of its own: what another session has by another way would be kept idle.
	lio_target $protected "$(lio_file protected /tmp/luns/protected $((64 * mib)))"
	echo 1 >$LIO/iscsi/$protected/tpgt_1/attrib/demo_mode_write_protect
	lio_portal $protected 127.0.0.1:3271
}

tgt_up() {
	truncate -s 512M /tmp/luns/tgt /tmp/luns/tgt4k
	tgt_start
	tgt_target iscsi 1 $tgt /tmp/luns/tgt
	tgtadm --op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1
	tgtadm --op new --mode logicalunit --tid 1 --lun 2 -b /tmp/luns/tgt4k --blocksize 4096
}

facts() {
	local thin native
	thin=$(disk_of $lio 1) native=$(disk_of $lio 2)
	is "$thin" queue/logical_block_size 512
	is "$thin" queue/rotational 0
	is "$thin" queue/write_cache "write back"
	is "$thin" queue/fua 1
	is "$thin" queue/io_timeout 500
	is "$thin" backend "iscsid $lio 0"
	is "$native" queue/logical_block_size 4096
	is "$(disk_of $lio 4)" queue/discard_max_bytes 0
	# Whether zeroes are written by a command of their own is up to the kernel.
	echo "   write_zeroes_max_bytes: $(cat "/sys/block/${thin##*/}/queue/write_zeroes_max_bytes")"
}

# resized: a logical unit that grows under a mounted file system, which grows then.
resized() {
	local grow=iqn.2026-11.example:grow loop d at=/tmp/disk-grow load
	truncate -s 64M /tmp/luns/grow
	loop=$(losetup -f --show /tmp/luns/grow)
	lio_target $grow "$(lio_block grow "$loop")"
	lio_portal $grow 127.0.0.1:3272
	ctl -A -t $grow -p 127.0.0.1:3272 -w 60
	d=$(disk_of $grow 1)
	mkfs.ext4 -q -F "$d"
	mkdir -p $at
	mount "$d" $at
	disk_fio $at/file --rw=randwrite --bs=4k --iodepth=8 --ioengine=libaio --direct=1 --size=8m --time_based --runtime=10 &
	load=$!
	truncate -s 128M /tmp/luns/grow
	losetup -c "$loop"
	# LIO does not tell of it: a login does.
	echo 0 >$LIO/iscsi/$grow/tpgt_1/enable
	echo 1 >$LIO/iscsi/$grow/tpgt_1/enable
	wait_for 60 grown "$d"
	resize2fs "$d"
	[ "$(df --output=size -B1M $at | tail -1)" -gt 90 ]
	wait $load
	umount $at
	fsck.ext4 -f -n "$d" >/dev/null 2>&1
	ctl -R -t $grow
}

grown() { [ "$(blockdev --getsize64 "$1")" = $((128 * mib)) ]; }

# removal of a disk in use is refused, and by force its users see errors.
removal() {
	local d at=/tmp/disk-forced
	d=$(disk_of $lio 1)
	mkfs.ext4 -q -F "$d"
	mkdir -p $at
	mount "$d" $at
	if ctl -R -t $lio 2>/tmp/refused; then fail "a mounted disk was removed"; fi
	grep "mounted on $at" /tmp/refused
	ctl -R -t $lio --force
	if dd if=/dev/zero of=$at/file bs=1M count=1 conv=fsync status=none 2>/dev/null; then fail "a write to nowhere succeeded"; fi
	umount $at
	wait_for 10 nothing_left
}

nothing_left() { ! ls /sys/block/nbd*/backend 2>/dev/null; }

trap disk_finish EXIT
modprobe -a nbd loop
ulimit -l unlimited
lio_up
tgt_up
daemon_start

echo "=== LIO"
ctl -A -t $lio -p 127.0.0.1:3270 -w 60
ctl -L -v
facts
disk_matrix "$(disk_of $lio 1)"
disk_some "$(disk_of $lio 2)"
disk_large "$(disk_of $lio 3)"
ctl -A -t $protected -p 127.0.0.1:3271 -w 60
disk_readonly "$(disk_of $protected 1)"
ctl -R -t $protected
resized
removal

echo "=== tgt"
ctl -A -t $tgt -p 127.0.0.1:3262 -w 60
ctl -L -v
disk_some "$(disk_of $tgt 1)" "$(disk_of $tgt 2)"
ctl -R -t $tgt

daemon_stop
if ! nothing_left; then fail "devices are left"; fi
tgt_stop
lio_clear
