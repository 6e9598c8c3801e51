# shellcheck shell=bash
# What cases about disks of iscsid use, after lib.sh:  . "$VM_GUEST/disk.sh"
# First the daemon, then what any disk must be able to do. It is for set -e, and says
# which command has failed.

# ---- the programs ----------------------------------------------------------------

# One daemon at a time, with its files below $DISK_RUN and its log there.
DISK_RUN=${DISK_RUN:-/tmp/disk-run}
DISK_BIN=${DISK_BIN:-$VM_BIN} # where its programs are
DISK_OPTIONS=()               # of iscsid, such as -o device=ublk
DAEMON=
set -E
trap 'echo "failed: $BASH_COMMAND (${FUNCNAME[0]:-the case}, line $LINENO)" >&2' ERR

ctl() { "$DISK_BIN/iscsictl" --socket "$DISK_RUN/control.sock" "$@"; }

# daemon_start starts iscsid and returns when it answers.
daemon_start() {
	daemon_begin
	daemon_answers
}

# daemon_begin starts it.
daemon_begin() {
	mkdir -p "$DISK_RUN"
	rm -f "$DISK_RUN/control.sock"
	"$DISK_BIN/iscsid" -d -P "$DISK_RUN/pid" --run "$DISK_RUN" ${DISK_OPTIONS[@]+"${DISK_OPTIONS[@]}"} >>"$DISK_RUN/log" 2>&1 &
	DAEMON=$!
}

# daemon_answers returns when it does.
daemon_answers() {
	wait_for 30 test -S "$DISK_RUN/control.sock"
	wait_for 30 ctl -L
}

# daemon_kill ends it as a crash would.
daemon_kill() {
	kill -9 "$DAEMON"
	wait "$DAEMON" 2>/dev/null || true
	DAEMON=
}

# daemon_stop ends it properly.
daemon_stop() {
	local pid=$DAEMON
	DAEMON=
	if [ -n "$pid" ]; then kill "$pid" && wait "$pid"; fi
}

# disk_finish is for a case's EXIT trap: on failure it shows what there is, and
# it ends what was started. $? is the case's status.
disk_finish() {
	local status=$?
	trap - EXIT ERR
	set +e
	if [ $status -ne 0 ]; then
		echo "--- the session list, the log and the kernel's"
		timeout 10 "$DISK_BIN/iscsictl" --socket "$DISK_RUN/control.sock" -L -v
		tail -n 60 "$DISK_RUN/log"
		dmesg | tail -n 20
		# At the time limit, what the daemon's goroutines wait for is of interest.
		if [ $status -eq 143 ] && [ -n "$DAEMON" ]; then kill -QUIT "$DAEMON" && sleep 2; fi
		cp "$DISK_RUN/log" "$VM_LOGS/$(basename "$0" .sh).daemon.log"
	fi
	touch /tmp/kills.end # of kills.sh
	umount -l /tmp/disk-* 2>/dev/null
	if [ -n "$DAEMON" ]; then daemon_stop; fi
	if [ -n "${TGT_PID:-}" ]; then tgt_stop; fi
	lio_clear
	exit $status
}

# disk_of IQN N prints the path of the N-th device of a target's session.
disk_of() {
	local name
	name=$(ctl -L | awk -v t="$1" -v n="$2" '$1 == t && /Connected:/ { print $(3 + n) }')
	if [ -z "$name" ]; then
		echo "no device $2 of $1" >&2
		return 1
	fi
	echo "/dev/$name"
}

# ---- what a disk must do ---------------------------------------------------------

# disk_matrix DEVICE... goes through all of it, on each of the devices. What is
# on them is lost. A file system of XFS needs 300 MiB.
disk_matrix() {
	local d
	for d; do
		disk_steps "$d" disk_verify disk_zeroes disk_discard disk_partitions disk_crypt "disk_fs ext4" "disk_fs xfs"
	done
}

# disk_some DEVICE... goes through what depends on the target and on the size of
# a block; with MATRIX=full it is disk_matrix.
disk_some() {
	local d steps
	if [ "${MATRIX:-}" = full ]; then
		disk_matrix "$@"
		return
	fi
	for d; do
		steps=(disk_verify disk_discard)
		if [ "$(blockdev --getss "$d")" -ne 512 ]; then steps+=("disk_fs xfs"); fi
		disk_steps "$d" "${steps[@]}"
	done
}

# disk_steps DEVICE STEP... goes through some of it.
disk_steps() {
	local d=$1 step begin
	shift
	modprobe -a ext4 xfs dm_mod dm_crypt loop 2>/dev/null || true
	echo "== $d: $(blockdev --getsize64 "$d") bytes in blocks of $(blockdev --getss "$d") ($(blockdev --getpbsz "$d"))"
	for step; do
		begin=$SECONDS
		echo "-- $step"
		$step "$d"
		echo "   $((SECONDS - begin)) s"
	done
}

# disk_fio FILE ARGUMENT... runs fio on a device or file, verifying. --name=
# begins a further job; what stands before the first is for all of them. It is
# waited for in a way that lets the case end at its time limit.
disk_fio() {
	local file=$1 out=/tmp/fio.$BASHPID
	shift
	if [[ "$*" != *--name=* ]]; then set -- "$@" --name=verify; fi
	fio --filename="$file" --verify=crc32c --verify_fatal=1 --verify_dump=1 --randrepeat=0 --minimal "$@" >"$out" 2>&1 &
	wait $! && return
	echo "fio on $file, $*: $(cat "$out")" >&2
	return 1
}

# disk_verify DEVICE: writes of each kind, read back and compared: random,
# sequential and mixed, direct and buffered, depth 1 to 128, one block to 1 MiB.
# What is buffered is read from the disk and not from the cache. All is one fio,
# which takes long to start in an emulated processor.
disk_verify() {
	local d=$1 block
	block=$(blockdev --getss "$d")
	disk_fio "$d" --stonewall --direct=1 --ioengine=libaio \
		--name=mixed --rw=randwrite --bsrange="$block-1m" --blockalign="$block" --iodepth=128 --size=48m \
		--name=large --rw=write --bs=1m --iodepth=16 --size=32m \
		--name=both --rw=randrw --bs=4k --iodepth=32 --size=8m \
		--name=single --rw=randwrite --bs="$block" --ioengine=psync --size=256k --offset=48m \
		--name=uring --rw=randwrite --bs=64k --iodepth=8 --ioengine=io_uring --size=8m --offset=56m \
		--name=buffered --rw=randwrite --bs=16k --ioengine=psync --direct=0 --size=32m --offset=64m --end_fsync=1 --do_verify=0 \
		--name=read --rw=read --bs=16k --ioengine=psync --size=32m --offset=64m
}

# disk_fill DEVICE OFFSET LENGTH (in MiB) writes noise and keeps it in /tmp/noise.
disk_fill() {
	head -c "${3}M" /dev/urandom >/tmp/noise
	dd if=/tmp/noise of="$1" bs=1M seek="$2" oflag=direct conv=fsync,notrunc status=none
}

# disk_holds DEVICE OFFSET LENGTH FILE [SKIP] compares, all in bytes.
disk_holds() {
	cmp -n "$3" -i "0:${5:-0}" <(dd if="$1" bs=64k iflag=skip_bytes,count_bytes,direct skip="$2" count="$3" status=none) "$4"
}

# disk_zeroes DEVICE: a range is zeroed (by WRITE SAME where the disk knows it),
# and nothing beside it.
disk_zeroes() {
	local d=$1 m=$((1 << 20)) block
	block=$(blockdev --getss "$d")
	disk_fill "$d" 8 8
	blkdiscard --zeroout --offset $((9 * m + block)) --length $((5 * m)) "$d"
	disk_holds "$d" $((8 * m)) $((m + block)) /tmp/noise
	disk_holds "$d" $((9 * m + block)) $((5 * m)) /dev/zero
	disk_holds "$d" $((14 * m + block)) $((2 * m - block)) /tmp/noise $((6 * m + block))
}

# disk_discard DEVICE: a discarded range may read as anything, what is beside it
# stays, and it can be written again. A disk that offers no discard refuses it.
disk_discard() {
	local d=$1 m=$((1 << 20)) most
	most=$(cat "/sys/block/${d##*/}/queue/discard_max_bytes")
	if [ "$most" -eq 0 ]; then
		if blkdiscard --length $m "$d" 2>/dev/null; then return 1; fi
		echo "   (offers no discard)"
		return
	fi
	disk_fill "$d" 16 8
	blkdiscard --offset $((18 * m)) --length $((3 * m)) "$d"
	disk_holds "$d" $((16 * m)) $((2 * m)) /tmp/noise
	disk_holds "$d" $((21 * m)) $((3 * m)) /tmp/noise $((5 * m))
	disk_fill "$d" 18 3
	disk_holds "$d" $((18 * m)) $((3 * m)) /tmp/noise
}

# disk_partitions DEVICE: two partitions, which the kernel shows and which have
# file systems of their own that blkid knows.
disk_partitions() {
	local d=$1 n
	printf 'o\nn\np\n1\n\n+64M\nn\np\n2\n\n+64M\nw\n' | busybox fdisk "$d" >/tmp/fdisk.log 2>&1 || true
	blockdev --rereadpt "$d"
	for n in 1 2; do
		wait_for 10 test -b "${d}p$n" || { cat /tmp/fdisk.log >&2 && return 1; }
		mkfs.ext4 -q -F -L "part$n" "${d}p$n"
		[ "$(blkid -p -o value -s LABEL "${d}p$n")" = "part$n" ]
		disk_files "${d}p$n" 4
	done
	wipefs -q -a "${d}p1" "${d}p2" "$d"
	blockdev --rereadpt "$d"
	if [ -e "${d}p1" ]; then return 1; fi
}

# disk_crypt DEVICE: dm-crypt on it, a file system on that, and no plain text on
# the disk.
disk_crypt() {
	local d=$1 key
	key=$(head -c 64 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
	dmsetup create disk-crypt --table "0 $((64 << 11)) crypt aes-xts-plain64 $key 0 $d 0 1 allow_discards"
	dmsetup mknodes 2>/dev/null || true
	mkfs.ext4 -q -F -L secret /dev/mapper/disk-crypt
	disk_files /dev/mapper/disk-crypt 8
	[ "$(blkid -p -o value -s LABEL /dev/mapper/disk-crypt)" = secret ]
	# A disk with something on top is in use.
	if ctl -R -a >/tmp/remove.log 2>&1; then return 1; fi
	grep -q 'held by' /tmp/remove.log
	dmsetup remove disk-crypt
	if blkid -p "$d" >/dev/null 2>&1; then return 1; fi
}

# disk_fs ext4|xfs DEVICE: a file system on the whole, found by blkid, in use
# while it is mounted, whole after it.
disk_fs() {
	local kind=$1 d=$2
	if [ "$kind" = ext4 ]; then mkfs.ext4 -q -F "$d"; else mkfs.xfs -q -f "$d"; fi
	[ "$(blkid -p -o value -s TYPE "$d")" = "$kind" ]
	[ -n "$(blkid -p -o value -s UUID "$d")" ]
	disk_files "$d" 24
	if [ "$kind" = ext4 ]; then fsck.ext4 -f -n "$d" >/dev/null 2>&1; else xfs_repair -n "$d" >/dev/null 2>&1; fi
	wipefs -q -a "$d"
}

# disk_files DEVICE MIB mounts it, writes files past the cache and through it,
# and finds them again after another mount.
disk_files() {
	local d=$1 at=/tmp/disk-mount
	mkdir -p $at
	mount "$d" $at
	head -c "${2}M" /dev/urandom >$at/buffered
	dd if=$at/buffered of=$at/direct bs=64k oflag=direct status=none
	mkdir $at/many
	for n in $(seq 50); do echo "file $n" >"$at/many/$n"; done
	cmp $at/buffered $at/direct
	(cd $at && sha256sum buffered direct many/* >/tmp/disk.sum)
	fstrim $at 2>/dev/null || true
	umount $at
	mount "$d" $at
	(cd $at && sha256sum --quiet -c /tmp/disk.sum)
	umount $at
}

# disk_readonly DEVICE: it reads, and does not let itself be written.
disk_readonly() {
	[ "$(blockdev --getro "$1")" = 1 ]
	dd if="$1" of=/dev/null bs=64k count=16 iflag=direct status=none
	if dd if=/dev/zero of="$1" bs=4k count=1 oflag=direct status=none 2>/dev/null; then return 1; fi
	if blkdiscard --length 1048576 "$1" 2>/dev/null; then return 1; fi
}

# disk_large DEVICE: over 2 TiB, where 32 bits do not count the blocks: from that
# line on and to the end, and nothing of it is found 2 TiB before.
disk_large() {
	local d=$1 line=$((2 << 40)) size at
	size=$(blockdev --getsize64 "$d")
	[ "$size" -gt $line ]
	head -c 1M /dev/urandom >/tmp/noise
	for at in $line $((size - (1 << 20))); do
		dd if=/dev/zero of="$d" bs=64k count=16 oflag=seek_bytes,direct seek=$((at - line)) conv=notrunc status=none
		dd if=/tmp/noise of="$d" bs=64k oflag=seek_bytes,direct seek="$at" conv=notrunc status=none
		disk_holds "$d" "$at" $((1 << 20)) /tmp/noise
		disk_holds "$d" $((at - line)) $((1 << 20)) /dev/zero
	done
	disk_fio "$d" --rw=randwrite --bs=4k --iodepth=32 --ioengine=libaio --direct=1 --size=1m --offset=$((size - (8 << 20)))
}
