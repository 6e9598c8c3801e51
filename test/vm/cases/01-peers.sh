#!/usr/bin/env bash
# The peers by themselves, so that a failure of ours is told from one of theirs:
# LIO and tgtd serve iSER, to somebody else's initiator, and not quietly TCP.
# Not on 6.1, whose LIO can hang for good when libiscsi gives up a login, which
# leaves the machine useless to the cases behind this one.
# runs: 6.12/*
set -euo pipefail
. "$VM_GUEST/lib.sh"
initiator=iqn.2026-11.example:guest
rdma_up "$RDMA"
ulimit -l unlimited # siw on 6.1 asks root as well

# inquire asks a LUN what it is. libiscsi gives up sooner than a slow machine's
# first connection takes.
inquire() { wait_for 60 timeout 20 iscsi-inq -i $initiator "$1"; }

lio_init
disk=$(lio_ram peers 16)
lio_target iqn.2026-11.example:peers "$disk"
lio_portal iqn.2026-11.example:peers "$RD_ADDR:3260" iser
trap lio_clear EXIT
inquire "iser://$RD_ADDR:3260/iqn.2026-11.example:peers/0"
if timeout 20 iscsi-inq -i $initiator "iscsi://$RD_ADDR:3260/iqn.2026-11.example:peers/0"; then
	fail "LIO's iSER portal serves TCP"
fi
lio_clear

# On siw, tgtd aborts at the first connection.
if [ "$RDMA" != rxe ]; then exit 0; fi
truncate -s 16M /tmp/peers.img
tgt_start
trap tgt_stop EXIT
tgt_target iser 1 iqn.2026-11.example:tgt /tmp/peers.img $initiator
inquire "iser://$RD_ADDR:3260/iqn.2026-11.example:tgt/1"
