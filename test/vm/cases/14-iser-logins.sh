#!/usr/bin/env bash
# LOGINS logins and logouts, with LIO and by all providers: no descriptor,
# object of RDMA, thread or memory is left behind by them, on our side or the
# target's.
# runs: 6.12/*
# timeout: 1500
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/iser.sh"
sessions=10 logins=${LOGINS:-200}

# holdings prints what the daemon and the target hold: what must not grow.
holdings() {
	local what
	echo "descriptors $(ls /proc/"$DAEMON"/fd | wc -l)"
	echo "mappings $(wc -l </proc/"$DAEMON"/maps)"
	for what in qp mr pd cq cm_id; do
		echo "$what $(rdma resource show $what | grep -c 'comm iscsid' || true)"
		echo "kernel-$what $(rdma resource show $what | grep -c 'comm \[' || true)"
	done
}

# memory prints the resident KiB of the daemon.
memory() { awk '/^VmRSS:/ { print $2 }' /proc/"$DAEMON"/status; }

# rounds N: each round is a login and a logout of all sessions.
rounds() {
	local i
	for i in $(seq "$1"); do
		ctl -A -a -c /tmp/logins.conf -w 120
		if [ "$i" = 1 ]; then iser_proved $sessions [ >/dev/null; fi
		ctl -R -a
		wait_for 60 nobody
	done
}

nobody() { [ "$(ctl -L | wc -l)" -le 1 ] && iser_gone && lio_idle; }

target_up() {
	local n iqn
	for n in $(seq $sessions); do
		iqn=iqn.2026-11.example:login$n
		iser_target "$iqn" "$(lio_ram "login$n" 4)"
	done
}

# logins: the first half brings everything to its size; the rest must not add to it.
logins() {
	local n first=$(($1 / sessions / 2)) begin memory
	for n in $(seq $sessions); do iser_entry "login$n" "iqn.2026-11.example:login$n"; done >/tmp/logins.conf
	rounds $first
	holdings >/tmp/holdings.before
	memory=$(memory) begin=$SECONDS
	rounds $(($1 / sessions - first))
	echo "$PROVIDER: $1 logins and logouts, the last $(($1 - first * sessions)) in $((SECONDS - begin)) s;" \
		"resident memory $memory KiB after the first $((first * sessions)), $(memory) KiB after all"
	holdings >/tmp/holdings.after
	paste -d ' ' /tmp/holdings.before /tmp/holdings.after | awk '{ print "   " $1 ": " $2 " and " $4 }'
	wait_for 30 settled || fail "something is left"
	# A session takes some 400 KiB while it is there; by software iWARP 3.5 MiB, for
	# which Go's heap comes to twice what ten of them have, and keeps it.
	local more=4096
	if [ "$PROVIDER" = iwarp ]; then more=$((96 << 10)); fi
	[ "$(memory)" -lt $((memory + more)) ] || fail "memory has grown"
}

# settled: what there is has come back to what there was; the end of a connection
# goes on behind a logout for a moment.
settled() {
	holdings >/tmp/holdings.after
	awk 'NR == FNR { had[$1] = $2; next } $2 > had[$1] + ($1 == "mappings" ? 20 : 0) { exit 1 }' /tmp/holdings.before /tmp/holdings.after
}

iser_begin
target_up
# Disks as sockets: block devices take longer than the logins.
DISK_OPTIONS=(-o device=socket)
daemon_start
for PROVIDER in $(iser_providers); do logins $((logins / $(iser_providers | wc -l))); done
daemon_stop
