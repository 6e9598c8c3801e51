# shellcheck shell=bash
# What cases about iSER use, after lib.sh:  . "$VM_GUEST/iser.sh"
# It is for set -e. $PROVIDER is the provider of RDMA that our side uses.
DISK_RUN=/tmp/iser-run
. "$VM_GUEST/disk.sh"
# Over iSER, the answer to a ping waits for the data of the commands before it,
# which can take some seconds here: where silence is not the matter, it may last.
DISK_OPTIONS=(-o kern.iser.debug=3 -o kern.iscsi.ping_timeout=40)
ISER_PORTAL=$RD_ADDR:3260
ISER_STALLED=() # devices of dm that are suspended, or may be

# iser_providers prints what can be used with the run's RDMA: software iWARP
# reaches siw, but no RoCE device.
iser_providers() {
	echo verbs
	if [ "$RDMA" = siw ]; then echo iwarp; fi
}

# iser_begin makes the machine ready, and its end sure.
iser_begin() {
	trap iser_finish EXIT
	rm -rf $DISK_RUN
	modprobe -a ublk_drv loop fuse 2>/dev/null || true # some kernels have no ublk
	ulimit -l unlimited                                # siw on 6.1 asks root as well
	lio_init
	rdma_up "$RDMA"
}

# iser_finish is for a case's EXIT trap: it takes everything away.
iser_finish() {
	local status=$? d
	trap - EXIT ERR
	set +e
	kill $(jobs -p | grep -vx "${DAEMON:-none}") 2>/dev/null
	for d in ${ISER_STALLED[@]+"${ISER_STALLED[@]}"}; do dmsetup resume "$d"; done
	( (exit $status) || disk_finish )
	if [ -n "$DAEMON" ]; then kill "$DAEMON" 2>/dev/null && wait "$DAEMON"; fi
	if [ -n "${TGT_PID:-}" ]; then tgt_stop; fi
	lio_clear
	for d in ${ISER_STALLED[@]+"${ISER_STALLED[@]}"}; do dmsetup remove "$d"; done
	losetup -D 2>/dev/null
	exit $status
}

# iser_target IQN DISK... has LIO serve them by iSER.
iser_target() {
	lio_target "$@"
	lio_portal "$1" "$ISER_PORTAL" iser
}

# iser_entry NICKNAME IQN [LINE...] prints an entry of iscsi.conf(5). Without a
# name it is one for discovery.
iser_entry() {
	local line
	printf '%s {\n\tTargetAddress = %s\n\tProtocol = iSER\n\tOffload = %s\n' "$1" "$ISER_PORTAL" "$PROVIDER"
	if [ -n "$2" ]; then printf '\tTargetName = %s\n' "$2"; else printf '\tSessionType = Discovery\n'; fi
	for line in "${@:3}"; do printf '\t%s\n' "$line"; done
	echo '}'
}

# iser_add IQN [LINE...] adds such a session, without waiting for it.
iser_add() {
	iser_entry session "$@" >/tmp/iser.conf && chmod 600 /tmp/iser.conf
	ctl -A -n session -c /tmp/iser.conf
}

# iser_login IQN [LINE...] waits for it and for its disks.
iser_login() {
	iser_add "$@"
	ctl -L -w 120 >/tmp/iser.list
}

# iser_logout IQN
iser_logout() {
	ctl -R -t "$1"
	wait_for 60 iser_gone
}

# iser_gone: no queue pair is in use, on either side.
iser_gone() { [ "$(iser_pairs "")" -eq 0 ]; }

# iser_pairs OWNER prints how many connected queue pairs there are of processes
# whose name begins so, or, with "[", of the kernel.
iser_pairs() { rdma resource show qp | grep -F 'type RC state RTS' | grep -cF "comm $1" || true; }

# iser_proved N OWNER: the N sessions that there are use RDMA, at the target's
# end, and at ours where our end is a device.
iser_proved() {
	local ours=0
	if [ "$PROVIDER" = verbs ]; then ours=$1; fi
	rdma resource show qp | grep -F 'type RC' | sed 's/^/    /'
	[ "$(iser_pairs iscsid)" -eq "$ours" ] || fail "$(iser_pairs iscsid) queue pairs of ours, not $ours"
	[ "$(iser_pairs "$2")" -eq "$1" ] || fail "$(iser_pairs "$2") queue pairs of the target's, not $1"
	[ "$(ctl -L -v | grep -c "^RDMA provider: *$PROVIDER\$")" -eq "$1" ] || fail "not $1 sessions by $PROVIDER"
	# RoCE has no TCP connection; iWARP is on top of one.
	if [ "$RDMA" = rxe ] && ss -Htn state established | grep -q ':3260'; then fail "there is a TCP connection"; fi
}

# iser_state IQN STATE: the session's state is this one. Its line is then in
# /tmp/iser.state; by the next look it may be another.
iser_state() { ctl -L | grep -F "$1 " | grep -F "$2" >/tmp/iser.state; }

# iser_silence SECONDS is how long a session may be silent.
iser_silence() { ctl --sysctl kern.iscsi.ping_timeout="$1" >/dev/null; }

# iser_lost IQN: there is no connection.
iser_lost() { ! iser_state "$1" Connected; }

# iser_refused IQN REASON [LINE...]: a login ends so, and the log says so, in words
# that match a basic regular expression. The list shows the last attempt alone.
iser_refused() {
	local from
	from=$(wc -l <"$DISK_RUN/log")
	iser_add "$1" "${@:3}"
	wait_for 90 bash -c "tail -n +$((from + 1)) '$DISK_RUN/log' | grep -q '($1): .*$2'" || { ctl -L -v && return 1; }
	tail -n +$((from + 1)) "$DISK_RUN/log" | grep "($1): .*$2"
	ctl -R -t "$1"
}

# iser_lun IQN LUN prints the path of a logical unit's device.
iser_lun() { readlink -e "$DISK_RUN/by-target/$1/lun$2"; }

# iser_counter IQN LABEL prints what the list says of the session.
iser_counter() { ctl -L -v | awk -v t="$1" -v l="$2:" '/^Target name:/ { here = $3 == t } here && index($0, l) == 1 { print $NF }'; }

# iser_fio DEVICE ARGUMENT... writes and verifies past the cache.
iser_fio() { disk_fio "$1" --allow_file_create=0 --ioengine=libaio --direct=1 --rw=randwrite "${@:2}"; }

# iser_load DEVICE goes on with that until /tmp/iser.end is there, and leaves in
# /tmp/iser.rounds how often it has verified all.
iser_load() {
	local rounds=0
	until [ -e /tmp/iser.end ]; do
		iser_fio "$1" --bsrange=4k-256k --blockalign=4k --iodepth=16 --size=8m
		rounds=$((rounds + 1))
		echo $rounds >/tmp/iser.rounds
	done
}

# iser_load_begin DEVICE starts it, in ISER_LOAD, and waits for the first round.
iser_load_begin() {
	rm -f /tmp/iser.end /tmp/iser.rounds
	iser_load "$1" &
	ISER_LOAD=$!
	wait_for 120 test -s /tmp/iser.rounds
}

# iser_load_end wants it to have gone on, and without an error.
iser_load_end() {
	local before
	before=$(cat /tmp/iser.rounds)
	wait_for 240 iser_load_beyond "$before"
	touch /tmp/iser.end
	wait $ISER_LOAD
	echo "   verified $(cat /tmp/iser.rounds) times"
}

iser_load_beyond() { [ "$(cat /tmp/iser.rounds)" -gt "$1" ] || ! kill -0 "$ISER_LOAD"; }

# iser_dm NAME MIB TABLE... makes a device of dm on a loop device and prints its
# path; in the table, which is "linear" or "delay", LOOP stands for the latter.
iser_dm() {
	local name=$1 mib=$2 loop
	shift 2
	modprobe -a dm_mod loop
	truncate -s "${mib}M" "/tmp/$name.img"
	loop=$(losetup -f --show "/tmp/$name.img")
	dmsetup create --noudevsync "$name" --table "0 $((mib << 11)) ${*//LOOP/$loop}"
	echo "/dev/$(dmsetup info -c --noheadings -o blkdevname "$name")"
}

# step TEXT... says what is done, and how long the step before has taken.
step() {
	echo "-- $* ($((SECONDS - ${STEP:-0})) s)"
	STEP=$SECONDS
}
