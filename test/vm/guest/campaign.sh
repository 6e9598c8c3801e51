#!/usr/bin/env bash
# Campaigns (TestCampaignOutside of test/e2e) against LIO, for cases: after lib.sh, and
# between campaign_begin and the end of the case
#     campaign PROTOCOL PORTAL DEVICE NETWORK
# does CAMPAIGN_FAULTS faults in a random order to iscsid, the target, its disks, the
# network (netem on an interface, or nothing) and the clock, while hosts keep books of
# what was acknowledged. LIO's disks are of device mapper, which can hold requests and
# fail them. As a program of its own, with a verb, this is CAMPAIGN_CONTROL.
CAMPAIGN_TARGET=iqn.2026-11.example:campaign
CAMPAIGN_LOOPS=/tmp/campaign.loops
campaign_sectors=$((8 << 11))

campaign_table() { # KIND N
	case $1 in
	linear) dmsetup suspend "campaign$2" && dmsetup reload "campaign$2" --table "0 $campaign_sectors linear ${loops[$2]} 0" ;;
	error) dmsetup suspend --nolockfs "campaign$2" && dmsetup reload "campaign$2" --table "0 $campaign_sectors error" ;;
	esac && dmsetup resume "campaign$2"
}

campaign_control() { # VERB
	local n loops enable=/sys/kernel/config/target/iscsi/$CAMPAIGN_TARGET/tpgt_1/enable
	mapfile -t loops <$CAMPAIGN_LOOPS
	case $1 in
	stop) echo 0 >$enable ;;
	start) echo 1 >$enable ;;
	hold) for n in 0 1; do dmsetup suspend --nolockfs --noflush "campaign$n" || return; done ;;
	release) for n in 0 1; do dmsetup resume "campaign$n" || return; done ;;
	fail) for n in 0 1; do campaign_table error $n || return; done ;;
	mend) for n in 0 1; do campaign_table linear $n || return; done ;;
	*) echo "campaign: $1?" >&2 && return 2 ;;
	esac
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
	set -euo pipefail
	campaign_control "$1"
	exit
fi

# campaign_begin makes the target, without a portal.
campaign_begin() {
	local n disks=()
	modprobe -a ublk_drv nbd loop dm_mod sch_netem
	ulimit -l unlimited
	lio_init
	: >$CAMPAIGN_LOOPS
	trap campaign_end EXIT
	for n in 0 1; do
		truncate -s $((campaign_sectors * 512)) "/tmp/campaign$n"
		losetup -f --show "/tmp/campaign$n" >>$CAMPAIGN_LOOPS
		dmsetup create "campaign$n" --table "0 $campaign_sectors linear $(tail -1 $CAMPAIGN_LOOPS) 0"
		dmsetup mknodes 2>/dev/null || true
		disks+=("$(lio_block "campaign$n" "/dev/mapper/campaign$n")")
	done
	lio_target $CAMPAIGN_TARGET "${disks[@]}"
}

campaign_end() {
	local status=$? n
	set +e
	lio_clear
	for n in 0 1; do dmsetup remove "campaign$n"; done
	while read -r n; do losetup -d "$n"; done <$CAMPAIGN_LOOPS
	exit $status
}

campaign() {
	local n
	echo "== $1, $3"
	for n in 0 1; do dd if=/dev/zero of="/dev/mapper/campaign$n" bs=1M count=8 conv=fsync status=none; done
	CAMPAIGN_PROTOCOL=$1 CAMPAIGN_PORTAL=$2 CAMPAIGN_DEVICE=$3 CAMPAIGN_NETWORK=$4 CAMPAIGN_TARGET=$CAMPAIGN_TARGET \
		CAMPAIGN_LUNS="0 1" CAMPAIGN_CONTROL=$VM_GUEST/campaign.sh CAMPAIGN_CLOCK=yes \
		CAMPAIGN_FAULTS=${CAMPAIGN_FAULTS:-8} E2E_BIN=$VM_BIN \
		"$VM_TESTS/e2e.test" -test.v -test.run '^TestCampaignOutside$'
}
