#!/usr/bin/env bash
# What goes wrong with iSER, under verified I/O with LIO: a target's disk that
# stands still (task abort, reset), a target that is away or deleted and made anew,
# a network that loses everything (reinstatement), and a session that is removed by
# force.
# runs: 6.12/*
# quick: 6.12/rxe
# timeout: 1500
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/iser.sh"
target=iqn.2026-11.example:trouble

# said TEXT counts how often the daemon has said so.
said() { grep -c "$1" $DISK_RUN/log || true; }

more() { [ "$(said "$1")" -gt "$2" ]; }

# patience SECONDS is how long a command may take.
patience() { ctl --sysctl kern.iscsi.command_timeout="$1" >/dev/null; }

stall() { dmsetup suspend --noudevsync --nolockfs --noflush stall; }
go_on() { dmsetup resume --noudevsync stall; }

# abort: the disk below the target stands still for longer than a command may
# take. The target answers the abort when the disk is done, and the command is
# sent again.
abort() {
	local before
	before=$(said "aborting it")
	iser_load_begin "$d"
	patience 3
	stall
	wait_for 60 more "aborting it" "$before"
	sleep 1
	go_on
	patience 60
	iser_load_end
	grep -E "aborting|Abort|ABORT|abort" $DISK_RUN/log | tail -n 4
	step "$PROVIDER: a command was aborted"
}

# standstill: it stands still for longer than the abort may take as well, until the
# logical unit is to be reset. LIO answers both when the disk is done. (Where we give
# the connection up before that, Linux 6.12 does not come to the end of the session:
# its threads hang, and let nobody in again.)
standstill() {
	local before reset late
	before=$(said "ABORT TASK was not answered") reset=$(said "LOGICAL UNIT RESET has succeeded")
	late=$(said "SCSI Response for the unknown initiator task tag")
	iser_load_begin "$d"
	patience 3
	stall
	wait_for 60 more "ABORT TASK was not answered" "$before"
	sleep 1
	go_on
	patience 60
	iser_load_end
	more "LOGICAL UNIT RESET has succeeded" "$reset"
	# On a busy host LIO's answer to the reset can overtake that to a command, which is
	# one to an unknown task then: the session is reinstated.
	[ "$(iser_counter $target Reconnections)" -eq 0 ] || more "SCSI Response for the unknown initiator task tag" "$late"
	step "$PROVIDER: the logical unit was reset"
}

# away: the target is disabled, and then deleted and made anew.
away() {
	local before
	before=$(iser_counter $target Reconnections)
	iser_load_begin "$d"
	echo 0 >$LIO/iscsi/$target/tpgt_1/enable
	sleep 3
	echo 1 >$LIO/iscsi/$target/tpgt_1/enable
	iser_load_end
	[ "$(iser_counter $target Reconnections)" -gt "$before" ]
	before=$(iser_counter $target Reconnections)
	iser_load_begin "$d"
	lio_remove $target
	sleep 2
	iser_target $target "$disk"
	iser_load_end
	[ "$(iser_counter $target Reconnections)" -gt "$before" ]
	step "$PROVIDER: the target was disabled, and made anew"
}

# cut: nothing comes through for a while. We give up first; the target still has
# the old session when the new one logs in, and must end it.
cut_network() {
	local before
	before=$(iser_counter $target Reconnections)
	iser_load_begin "$d"
	iser_silence 4
	tc qdisc add dev lo root netem loss 100%
	wait_for 60 iser_lost $target
	iser_silence 40
	sleep 2
	tc qdisc del dev lo root
	iser_load_end
	[ "$(iser_counter $target Reconnections)" -gt "$before" ]
	iser_proved 1 [
	step "$PROVIDER: the network was cut, and the session reinstated"
}

# removal: fio gets errors, and nothing is left.
removal() {
	iser_load_begin "$d"
	exec 9<"$d" # fio is between two runs now and then
	if ctl -R -t $target; then fail "a disk in use was removed"; fi
	exec 9<&-
	ctl -R -t $target --force
	if wait "$ISER_LOAD"; then fail "I/O went on without a disk"; fi
	wait_for 60 iser_gone
	if [ -e "$d" ]; then fail "$d is still there"; fi
	rdma resource show | sed 's/^/   /'
	step "$PROVIDER: the session was removed"
}

iser_begin
disk=$(lio_block stall "$(iser_dm stall 16 linear LOOP 0)")
ISER_STALLED=(stall)
iser_target $target "$disk"
daemon_start
for PROVIDER in $(iser_providers); do
	iser_login $target
	d=$(iser_lun $target 0)
	step "$PROVIDER: logged in"
	abort
	standstill
	away
	if [ "$RDMA" = siw ]; then cut_network; fi # rxe does not use the network to reach itself
	removal
done
daemon_stop
step end
