#!/usr/bin/env bash
# iSER with tgtd, a target in user space, by verbs on rxe: login, CHAP one way and
# mutual, discovery, many logical units, verified data; tgtd stands still, and is
# killed and started again, under I/O. It crashes by itself now and then (1.0.85, a
# damaged list, some time after a connection has ended), so that it is kept up here
# as an init system does, and the case is none of the quick ones.
# runs: 6.12/rxe
# timeout: 1200
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/iser.sh"
PROVIDER=verbs
plain=iqn.2026-11.example:tgt chap=iqn.2026-11.example:tgt-chap mutual=iqn.2026-11.example:tgt-mutual
initiator=iqn.2026-11.example:guest luns=8

account() { # TID USER SECRET [--outgoing]
	tgtadm --lld iser --op new --mode account --user "$2" --password "$3"
	tgtadm --lld iser --op bind --mode account --tid "$1" --user "$2" ${4:+"$4"}
}

target_up() {
	local n
	tgt_start
	tgt_target iser 1 $plain /tmp/tgt.1 $initiator
	for n in $(seq 2 $luns); do
		tgtadm --lld iser --op new --mode logicalunit --tid 1 --lun "$n" -b "/tmp/tgt.$n"
	done
	tgt_target iser 2 $chap /tmp/tgt.chap $initiator
	account 2 alice secretofalice
	tgt_target iser 3 $mutual /tmp/tgt.mutual $initiator
	account 3 bob secretofbob12
	account 3 vault secretofvault --outgoing
}

# keep starts tgtd anew where it has crashed, until KEEPER is killed.
keep() {
	trap - EXIT ERR
	while sleep 0.2; do
		if ! tgt_lives; then
			echo "   tgtd has crashed: $(dmesg | grep 'tgtd.*segfault' | tail -1)"
			target_up
		fi
	done
}

target_keep() {
	keep &
	KEEPER=$!
}

target_down() {
	kill "$KEEPER" 2>/dev/null || true
	wait "$KEEPER" 2>/dev/null || true
	tgt_stop
}

target_again() {
	target_down
	target_up
	target_keep
}

login() { # IQN [LINE...]
	iser_login "$1" "InitiatorName = $initiator" "${@:2}"
	iser_proved 1 tgtd
}

refused() { # IQN STATE [LINE...]
	iser_refused "$1" "$2" "InitiatorName = $initiator" "${@:3}"
}

iser_begin
for n in $(seq $luns); do truncate -s $((n * 4 + 12))M "/tmp/tgt.$n"; done
truncate -s 8M /tmp/tgt.chap /tmp/tgt.mutual
target_up
target_keep
daemon_start

step "login, $luns logical units"
login $plain
ctl -L -v
for n in $(seq $luns); do
	d=$(iser_lun $plain "$n")
	[ "$(blockdev --getsize64 "$d")" -eq $(((n * 4 + 12) << 20)) ]
	yes "tgt $n" 2>/dev/null | head -c 64k >/tmp/lun || true
	dd if=/tmp/lun of="$d" bs=64k seek=3 oflag=direct conv=notrunc,fsync status=none
	cmp /tmp/lun <(dd if="/tmp/tgt.$n" bs=64k skip=3 count=1 status=none)
	cmp /tmp/lun <(dd if="$d" bs=64k skip=3 count=1 iflag=direct status=none)
done

step "data"
d=$(iser_lun $plain 1)
for bs in 4k 64k 1m 8m; do iser_fio "$d" --bs=$bs --iodepth=16 --size=8m; done
iser_fio "$d" --bsrange=512-128k --blockalign=512 --iodepth=16 --size=4m
iser_fio "$d" --bs=4k --iodepth=128 --size=4m
cmp /tmp/tgt.1 <(dd if="$d" bs=8M iflag=direct status=none)
ctl -L -v | grep -E '^(Requests|Bytes|Errors|Reconn)'
[ "$(iser_counter $plain Errors)" -eq 0 ]
[ "$(iser_counter $plain Reconnections)" -eq 0 ]

step "tgtd stands still: the session is lost on our side only, and reinstated"
iser_load_begin "$d"
iser_silence 4
kill -STOP "$(tgt_pid)"
wait_for 60 iser_lost $plain
iser_silence 40
kill -CONT "$(tgt_pid)"
iser_load_end
[ "$(iser_counter $plain Reconnections)" -gt 0 ]

step "tgtd is killed, and started again"
before=$(iser_counter $plain Reconnections)
iser_load_begin "$d"
target_down
sleep 2
target_up
target_keep
iser_load_end
[ "$(iser_counter $plain Reconnections)" -gt "$before" ]
iser_logout $plain

# tgtd takes the number of SHA-256 for SHA-1 and refuses what comes of it; and
# where it has refused a login by iSER it crashes (1.0.85) or answers no other.
step "CHAP"
login $chap "chapDigest = MD5" "chapIName = alice" "chapSecret = secretofalice"
iser_logout $chap
login $mutual "chapDigest = MD5" "chapIName = bob" "chapSecret = secretofbob12" "tgtChapName = vault" "tgtChapSecret = secretofvault"
iser_logout $mutual

step "discovery"
iser_add "" "InitiatorName = $initiator"
wait_for 60 iser_state $plain Connected
ctl -L
ctl -R -a

step "logins that fail"
refused $mutual "Mutual CHAP failed" "chapDigest = MD5" "chapIName = bob" "chapSecret = secretofbob12" "tgtChapName = vault" "tgtChapSecret = secretofathief"
target_again
refused $chap "Authentication failure" "chapDigest = MD5" "chapIName = alice" "chapSecret = someothersecret"
target_again
refused $chap "Authentication"
daemon_stop
step end
