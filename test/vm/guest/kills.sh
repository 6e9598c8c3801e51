# shellcheck shell=bash
# What cases use in which iscsid dies, after lib.sh and disk.sh:
#   . "$VM_GUEST/kills.sh"
# The targets first, each with two disks, then what is done to the daemon.

LIO_IQN=iqn.2026-11.example:lio TGT_IQN=iqn.2026-11.example:tgt

# kills_targets [rdma] starts LIO at 127.0.0.1:3270 (and, by iSER, at
# $RD_ADDR:3260), and tgt at 127.0.0.1:3262.
kills_targets() {
	mkdir -p /tmp/luns
	truncate -s 256M /tmp/luns/tgt1 /tmp/luns/tgt2
	lio_init
	lio_target $LIO_IQN "$(lio_file one /tmp/luns/one $((256 << 20)))" "$(lio_file two /tmp/luns/two $((256 << 20)))"
	lio_portal $LIO_IQN 127.0.0.1:3270
	if [ -n "${1:-}" ]; then lio_portal $LIO_IQN "$RD_ADDR:3260" iser; fi
	tgt_back
}

# X_away and X_back take a target away, and bring it back.
lio_away() { echo 0 >$LIO/iscsi/$LIO_IQN/tpgt_1/enable; }
lio_back() { echo 1 >$LIO/iscsi/$LIO_IQN/tpgt_1/enable; }
tgt_away() { tgt_stop; }
tgt_back() {
	tgt_start
	tgt_target iscsi 1 $TGT_IQN /tmp/luns/tgt1
	tgtadm --op new --mode logicalunit --tid 1 --lun 2 -b /tmp/luns/tgt2
}

# kills_session KIND LABEL ADD... is all of it on a session that iscsictl makes
# with these arguments, to lio or tgt.
kills_session() {
	local kind=$1 label=$2 iqn=$LIO_IQN
	shift 2
	if [ "$kind" = tgt ]; then iqn=$TGT_IQN; fi
	ctl -A -t $iqn "$@" -w 60
	disk_kills "$label" $iqn "$KILLS" "${kind}_away" "${kind}_back"
	ctl -R -t $iqn
}

# disk_kills LABEL IQN N AWAY BACK kills the daemon N times, and then goes on to
# an upgrade and to a target that is away meanwhile (the commands AWAY and BACK),
# with I/O on the target's first two disks all the time.
disk_kills() {
	local label=$1 iqn=$2 n=$3 away=$4 back=$5 one two at=/tmp/disk-kills lines said
	one=$(disk_of "$iqn" 1) two=$(disk_of "$iqn" 2) lines=$(dmesg | wc -l)
	mkfs.ext4 -q -F "$two"
	mkdir -p $at
	mount "$two" $at
	rm -f /tmp/kills.end /tmp/kills.*.rounds
	kills_load device "$one" &
	local load=$!
	kills_load file $at/file &
	local files=$!
	: >/tmp/kills.times
	for _ in $(seq "$n"); do
		sleep "0.$((RANDOM % 9))"
		daemon_kill
		kills_restart "$one"
		echo "$RECOVERY" >>/tmp/kills.times
		kill -0 $load
		kill -0 $files
	done
	sort -n /tmp/kills.times | awk -v label="$label" '{ t[NR] = $1 }
		END { printf "%s: %d kills; a read came back %.2f s after the start (median; %.2f to %.2f)\n",
			label, NR, t[int((NR + 1) / 2)], t[1], t[NR] }'
	echo "   (what the machine is like: to print its version alone, iscsid takes $(kills_pace) s)"

	sleep 1
	kill -USR1 "$DAEMON"
	wait "$DAEMON" || true
	said=$(wc -l <"$DISK_RUN/log")
	DISK_BIN=$VM_NEXT
	kills_restart "$one"
	echo "$label: upgrade: a read came back $RECOVERY s after the start"
	tail -n +$((said + 1)) "$DISK_RUN/log" | grep "iscsid next-build is ready"
	sleep 1
	daemon_kill
	DISK_BIN=$VM_BIN
	kills_restart "$one"

	sleep 1
	$away
	sleep 1
	daemon_kill
	daemon_start
	ctl -L
	sleep 3
	$back
	kills_read "$one"
	echo "$label: the target came back to a daemon that had died meanwhile"

	touch /tmp/kills.end
	wait $load
	wait $files
	echo "$label: verified $(cat /tmp/kills.device.rounds) times on the disk, $(cat /tmp/kills.file.rounds) times in the file"
	[ "$(disk_of "$iqn" 1)" = "$one" ]
	[ "$(disk_of "$iqn" 2)" = "$two" ]
	umount $at
	fsck.ext4 -f -n "$two" >/dev/null 2>&1
	if dmesg | tail -n +$((lines + 1)) | grep -E 'I/O error|EXT4-fs (error|warning)|Remounting'; then return 1; fi
}

# kills_load NAME FILE writes and verifies until it is to end.
kills_load() {
	local rounds=0
	until [ -e /tmp/kills.end ]; do
		disk_fio "$2" --rw=randwrite --bsrange=4k-256k --blockalign=4k --iodepth=32 --ioengine=libaio --direct=1 --size=16m
		rounds=$((rounds + 1))
		echo $rounds >"/tmp/kills.$1.rounds"
	done
}

# kills_restart DEVICE starts the daemon and sets RECOVERY to after how many seconds
# a read of the device returned.
kills_restart() {
	local begin
	kills_read "$1" &
	local read=$!
	begin=$EPOCHREALTIME
	daemon_begin
	wait $read
	daemon_answers
	RECOVERY=$(awk -v a="$begin" -v b="$(cat /tmp/kills.read)" 'BEGIN { printf "%.2f", b - a }')
}

# kills_pace prints how many seconds the daemon takes to start and do nothing.
kills_pace() {
	local begin=$EPOCHREALTIME
	"$DISK_BIN/iscsid" --version >/dev/null
	awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }'
}

kills_read() {
	dd if="$1" of=/dev/null bs=4k count=1 iflag=direct status=none
	echo "$EPOCHREALTIME" >/tmp/kills.read
}
