#!/usr/bin/env bash
# The tests of device/ublk on the kernel's driver, which Debian has from 6.12 on:
# the conformance suite, file systems, fio, and daemons that are killed.
# runs: 6.12/rxe
# timeout: 900
# quick: 6.12/rxe
set -euo pipefail
. "$VM_GUEST/lib.sh"
modprobe ublk_drv
UBLK_TEST_KILLS=$KILLS timeout -s QUIT 880 "$VM_TESTS/ublk.test" -test.v -test.count=1
