#!/usr/bin/env bash
# Campaigns against LIO by iSER, with disks by ublk and by the kernel's NBD
# (guest/campaign.sh). Nothing is done to the network: rxe has its own way from one
# end to the other.
# runs: 6.12/rxe
# timeout: 1200
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/campaign.sh"
rdma_up "$RDMA"
campaign_begin
lio_portal $CAMPAIGN_TARGET "$RD_ADDR:3260" iser
campaign iSER "$RD_ADDR:3260" ublk ""
campaign iSER "$RD_ADDR:3260" nbd ""
