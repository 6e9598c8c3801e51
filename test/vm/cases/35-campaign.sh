#!/usr/bin/env bash
# Campaigns against LIO by TCP, with disks by ublk and by the kernel's NBD
# (guest/campaign.sh).
# runs: 6.12/rxe
# timeout: 1200
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/campaign.sh"
campaign_begin
lio_portal $CAMPAIGN_TARGET 127.0.0.1:3270
campaign iSCSI 127.0.0.1:3270 ublk lo
campaign iSCSI 127.0.0.1:3270 nbd lo
