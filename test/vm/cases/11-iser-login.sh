#!/usr/bin/env bash
# iSER with LIO, on the run's RDMA: login, CHAP one way and mutual, what is wrong
# with it, many logical units; RDMA is seen to be used at both ends.
# runs: 6.12/rxe
# quick: 6.12/rxe
# timeout: 1200
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/iser.sh"
luns=16
many=iqn.2026-11.example:many
chap=iqn.2026-11.example:chap mutual=iqn.2026-11.example:mutual

target_up() {
	local n disks=()
	mkdir -p /tmp/iser-luns
	for n in $(seq 0 $((luns - 1))); do
		disks+=("$(lio_file "many$n" "/tmp/iser-luns/$n" $(((n + 1) << 20)))")
	done
	iser_target $many "${disks[@]}"
}

# login: each logical unit is where it should be, which is seen at the target's
# file of it.
login() {
	local n d
	iser_login $many
	ctl -L -v
	iser_proved 1 [
	for n in $(seq 0 $((luns - 1))); do
		d=$(iser_lun $many "$n")
		[ "$(blockdev --getsize64 "$d")" -eq $(((n + 1) << 20)) ]
		yes "$PROVIDER $n" 2>/dev/null | head -c 64k >/tmp/lun || true
		dd if=/tmp/lun of="$d" bs=64k seek="$n" oflag=direct conv=notrunc,fsync status=none
	done
	for n in $(seq 0 $((luns - 1))); do
		yes "$PROVIDER $n" 2>/dev/null | head -c 64k >/tmp/lun || true
		cmp /tmp/lun <(dd if="/tmp/iser-luns/$n" bs=64k skip="$n" count=1 status=none)
		cmp /tmp/lun <(dd if="$(iser_lun $many "$n")" bs=64k skip="$n" count=1 iflag=direct status=none)
	done
	iser_logout $many
}

authentication() {
	local user=("chapIName = alice" "chapSecret = secretofalice")
	iser_login $chap "${user[@]}"
	iser_proved 1 [
	iser_logout $chap
	# LIO disconnects as soon as it has posted the answer to a refused login, which
	# is then flushed at times.
	iser_refused $chap 'Authentication \(failure\|was not answered\)' "chapIName = alice" "chapSecret = someothersecret"
	iser_refused $chap '\(Authentication\|Initiator error\|the peer closed the connection\)' # none at all
	iser_login $mutual "${user[@]}" "tgtChapName = vault" "tgtChapSecret = secretofvault"
	iser_proved 1 [
	iser_logout $mutual
	iser_refused $mutual "Mutual CHAP failed" "${user[@]}" "tgtChapName = vault" "tgtChapSecret = secretofathief"
}

iser_begin
target_up
daemon_start
for PROVIDER in $(iser_providers); do
	step "$PROVIDER: $luns logical units"
	login
	step "$PROVIDER: logged out"
done
iser_target $chap "$(lio_ram chap 8)"
lio_chap $chap alice secretofalice
iser_target $mutual "$(lio_ram mutual 8)"
lio_chap $mutual alice secretofalice vault secretofvault
for PROVIDER in $(iser_providers); do
	step "$PROVIDER: CHAP"
	authentication
done
daemon_stop
step end
