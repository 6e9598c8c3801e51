#!/usr/bin/env bash
# What a disk as /dev/ublkbN must do, by TCP from LIO and tgt and by iSER from
# LIO: verified I/O of all kinds, discard, zeroes, partitions, dm-crypt, file
# systems; blocks of 4 KiB, over 2 TiB, read-only; what the kernel is told of
# the disk; a changed size; removal while it is in use, and by force.
# runs: 6.12/rxe
# quick: 6.12/rxe
# timeout: 1500
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/disk.sh"
DISK_OPTIONS=(-o device=ublk)
lio=iqn.2026-11.example:lio tgt=iqn.2026-11.example:tgt protected=iqn.2026-11.example:ro
mib=$((1 << 20))

# queue DEVICE NAME prints what the kernel was told.
queue() { cat "/sys/block/${1##*/}/queue/$2"; }

# is DEVICE NAME VALUE
is() { [ "$(queue "$1" "$2")" = "$3" ] || fail "$1: $2 is $(queue "$1" "$2"), not $3"; }

lio_up() {
	local thin=(emulate_tpu=1 emulate_tpws=1 emulate_write_cache=1)
	lio_init
	mkdir -p /tmp/luns
	truncate -s 3T /tmp/luns/large
	# VPD B0 of LIO gives the optimal length and the limits of UNMAP, B1 whether
	# it rotates.
	lio_target $lio \
		"$(lio_file thin /tmp/luns/thin $((512 * mib)) "${thin[@]}" optimal_sectors=256 is_nonrot=1 unmap_granularity=16 max_unmap_lba_count=8192)" \
		"$(lio_file native /tmp/luns/native $((512 * mib)) "${thin[@]}" block_size=4096 is_nonrot=0)" \
		"$(lio_file large /tmp/luns/large $((3 << 40)) "${thin[@]}")" \
		"$(lio_ram plain 64)"
	lio_portal $lio 127.0.0.1:3270
	lio_portal $lio "$RD_ADDR:3260" iser
	# A disk of its own: with the same one this would be another path to it.
	lio_target $protected "$(lio_file protected /tmp/luns/protected $((64 * mib)))"
	echo 1 >$LIO/iscsi/$protected/tpgt_1/attrib/demo_mode_write_protect
	lio_portal $protected 127.0.0.1:3271
}

tgt_up() {
	truncate -s 512M /tmp/luns/tgt /tmp/luns/tgt4k /tmp/luns/tgtro
	tgt_start
	tgt_target iscsi 1 $tgt /tmp/luns/tgt
	tgtadm --op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1
	tgtadm --op new --mode logicalunit --tid 1 --lun 2 -b /tmp/luns/tgt4k --blocksize 4096
	tgtadm --op new --mode logicalunit --tid 1 --lun 3 -b /tmp/luns/tgtro
	tgtadm --op update --mode logicalunit --tid 1 --lun 3 --params readonly=1
}

# facts: the kernel was told what the target says.
facts() {
	local thin native
	thin=$(disk_of $lio 1) native=$(disk_of $lio 2)
	is "$thin" logical_block_size 512
	is "$thin" optimal_io_size $((256 * 512))
	is "$thin" rotational 0
	is "$thin" discard_granularity $((16 * 512))
	is "$thin" write_cache "write back"
	is "$thin" fua 1
	[ "$(queue "$thin" discard_max_bytes)" -ge $((8192 * 512)) ]
	[ "$(queue "$thin" write_zeroes_max_bytes)" -gt 0 ]
	is "$native" logical_block_size 4096
	is "$native" rotational 0 # the target does not say how it rotates
	is "$(disk_of $lio 4)" discard_max_bytes 0
}

# resized: a logical unit that has grown is seen after a new login at the latest,
# and where the driver cannot change a size it is said what helps.
resized() {
	local grow=iqn.2026-11.example:grow loop d
	truncate -s 64M /tmp/luns/grow
	loop=$(losetup -f --show /tmp/luns/grow)
	lio_target $grow "$(lio_block grow "$loop")"
	lio_portal $grow 127.0.0.1:3272
	ctl -A -t $grow -p 127.0.0.1:3272 -w 60
	d=$(disk_of $grow 1)
	truncate -s 128M /tmp/luns/grow
	losetup -c "$loop"
	echo 0 >$LIO/iscsi/$grow/tpgt_1/enable
	echo 1 >$LIO/iscsi/$grow/tpgt_1/enable
	wait_for 60 grown "$d"
	ctl -R -t $grow
	ctl -A -t $grow -p 127.0.0.1:3272 -w 60
	[ "$(blockdev --getsize64 "$(disk_of $grow 1)")" = $((128 * mib)) ]
	ctl -R -t $grow
	losetup -d "$loop" # when LIO lets go of it
}

grown() {
	[ "$(blockdev --getsize64 "$1")" = $((128 * mib)) ] ||
		ctl -L -v | grep "cannot change a size.*from $((64 * mib)) to $((128 * mib)) bytes: it needs the session to be removed and added"
}

# removal of a disk in use is refused, and by force its users see errors.
removal() {
	local d at=/tmp/disk-forced
	d=$(disk_of $lio 1)
	mkfs.ext4 -q -F "$d"
	mkdir -p $at
	mount "$d" $at
	if ctl -R -t $lio 2>/tmp/refused; then fail "a mounted disk was removed"; fi
	grep "mounted on $at" /tmp/refused
	[ -b "$d" ]
	ctl -R -t $lio --force
	wait_for 30 test ! -e "$d"
	if dd if=/dev/zero of=$at/file bs=1M count=1 conv=fsync status=none 2>/dev/null; then fail "a write to nowhere succeeded"; fi
	umount $at
}

trap disk_finish EXIT
modprobe -a ublk_drv loop
ulimit -l unlimited
rdma_up "$RDMA"
lio_up
tgt_up
daemon_start
if grep 'not protected' "$DISK_RUN/log"; then fail "root can have all that protects disks when memory is short"; fi

echo "=== LIO by TCP"
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

echo "=== LIO by iSER"
ctl -A -r -t $lio -p "$RD_ADDR:3260" -w 60
ctl -L -v
disk_some "$(disk_of $lio 1)" "$(disk_of $lio 2)"
disk_large "$(disk_of $lio 3)"
ctl -R -t $lio

echo "=== tgt by TCP"
ctl -A -t $tgt -p 127.0.0.1:3262 -w 60
ctl -L -v
disk_some "$(disk_of $tgt 1)" "$(disk_of $tgt 2)"
disk_readonly "$(disk_of $tgt 3)"
ctl -R -t $tgt

daemon_stop
if ls /dev/ublkb* 2>/dev/null; then fail "devices are left"; fi
