#!/usr/bin/env bash
# Data by iSER with LIO: requests of 4 KiB to 8 MiB, and of lengths and at places
# that are no whole number of pages, all verified, also at the target's side; and
# as many commands outstanding as iSER allows, seen below the target.
# runs: 6.12/*
# quick: 6.12/rxe
# timeout: 1500
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/iser.sh"
target=iqn.2026-11.example:data mib=48

target_up() {
	iser_target $target "$(lio_file data /tmp/iser-data $((mib << 20)))" \
		"$(lio_block slow "$(iser_dm slow 16 delay LOOP 0 0)")"
	lio_depth $target 256
}

sizes() {
	local d=$1 bs
	for bs in 4k 64k 1m 8m; do
		iser_fio "$d" --bs=$bs --iodepth=16 --size=16m
		iser_fio "$d" --bs=$bs --iodepth=1 --size=16m --io_size=4m --offset=16m
		step "$PROVIDER: requests of $bs"
	done
	iser_fio "$d" --bsrange=512-128k --blockalign=512 --iodepth=16 --size=8m --offset=32m
	iser_fio "$d" --bs=7680 --blockalign=512 --iodepth=32 --size=4m --offset=40m
	iser_fio "$d" --bs=512 --iodepth=32 --size=256k --offset=44m
	step "$PROVIDER: lengths and places of any number of blocks"
	# What RDMA has brought to the target, and what it brings back.
	cmp /tmp/iser-data <(dd if="$d" bs=8M iflag=direct status=none)
	head -c ${mib}M /dev/urandom >/tmp/iser-data
	cmp /tmp/iser-data <(dd if="$d" bs=1000k iflag=direct status=none)
	step "$PROVIDER: all of it, compared with the target's file"
}

# delay MS sets how long the slow disk takes for a request.
delay() {
	local table
	table=$(dmsetup table slow)
	dmsetup suspend --noudevsync slow
	dmsetup load slow --table "${table% *} $1"
	dmsetup resume --noudevsync slow
}

# delayed prints how many requests the slow disk has.
delayed() { dmsetup status slow | awk '{ print $4 + $5 }'; }

# outstanding: the disk below the target takes seconds, so that commands pile up
# there; more are asked for than there may be.
outstanding() {
	local d=$1 most=0 now end=$((SECONDS + 60))
	delay 3000
	fio --name=pile --filename="$d" --rw=randread --bs=4k --iodepth=128 --ioengine=libaio --direct=1 --size=16m \
		--io_size=1m --minimal >/tmp/pile.out 2>&1 &
	local pile=$!
	while kill -0 $pile 2>/dev/null && [ $SECONDS -lt $end ] && [ $most -lt 120 ]; do
		now=$(delayed)
		if [ "$now" -gt $most ]; then most=$now; fi
		sleep 0.1
	done
	sleep 0.5 # for one too many
	now=$(delayed)
	if [ "$now" -gt $most ]; then most=$now; fi
	wait $pile || { cat /tmp/pile.out && return 1; }
	delay 0
	echo "   $most commands were outstanding at the target's disk"
	[ "$most" -eq 120 ] || fail "not 120"
	iser_fio "$d" --bs=4k --iodepth=128 --size=4m
	iser_fio "$d" --bsrange=4k-256k --blockalign=4k --iodepth=128 --size=16m
	step "$PROVIDER: 120 outstanding"
}

iser_begin
target_up
ISER_STALLED=(slow)
daemon_start
for PROVIDER in $(iser_providers); do
	iser_login $target
	step "$PROVIDER: logged in"
	sizes "$(iser_lun $target 0)"
	if [ -c /dev/ublk-control ]; then outstanding "$(iser_lun $target 1)"; fi # loop has not the depth
	iser_proved 1 [
	ctl -L -v | grep -E '^(Requests|Bytes|Errors|Reconn)'
	[ "$(iser_counter $target Errors)" -eq 0 ]
	[ "$(iser_counter $target Reconnections)" -eq 0 ]
	iser_logout $target
done
daemon_stop
step end
