#!/usr/bin/env bash
# The tests of device/nbd on the kernel's NBD driver: the conformance suite, writes
# that are held for long, connections that are cut, and daemons that are killed.
# runs: */rxe
# timeout: 900
# quick: 6.12/rxe
set -euo pipefail
. "$VM_GUEST/lib.sh"
NBD_TEST_KILLS=$KILLS timeout -s QUIT 880 "$VM_TESTS/nbd.test" -test.v -test.count=1 -test.run 'Kernel|TestServed|TestProbe'
