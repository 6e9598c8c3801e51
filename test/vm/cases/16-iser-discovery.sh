#!/usr/bin/env bash
# Discovery over iSER with LIO: as a session, by --discover, with CHAP and without.
# runs: 6.12/*
# quick: 6.12/rxe
# timeout: 900
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/iser.sh"
one=iqn.2026-11.example:one two=iqn.2026-11.example:two
auth=$LIO/iscsi/discovery_auth

# all: there are sessions to both targets, and then none.
all() {
	wait_for 60 iser_state $one Connected
	wait_for 60 iser_state $two Connected
	ctl -L -w 60
	iser_proved 2 [
	ctl -R -a
	wait_for 60 iser_gone
}

# entries: --discover prints what can be added. The command line pins no provider.
entries() {
	ctl --discover "$ISER_PORTAL" -r "$@" >/tmp/discovered.conf
	cat /tmp/discovered.conf
	[ "$(grep -c 'Protocol *= *iSER' /tmp/discovered.conf)" -eq 2 ]
}

# refused: there is a session for discovery, and no way in. LIO may disconnect before
# it has said why.
refused() { iser_state "$ISER_PORTAL" Authentication || iser_state "$ISER_PORTAL" "the peer closed the connection"; }

iser_begin
iser_target $one "$(lio_ram one 8)"
iser_target $two "$(lio_ram two 8)"
daemon_start
for PROVIDER in $(iser_providers); do
	iser_add ""
	all
	step "$PROVIDER: SessionType = Discovery"
done
PROVIDER=verbs
entries
ctl -A -a -c /tmp/discovered.conf
all
step "--discover, and its entries added"
ctl -A -d "$ISER_PORTAL" -r
all
step "-A -d"
printf alice >"$auth/userid"
printf discoverysecret >"$auth/password"
echo 1 >"$auth/enforce_discovery_auth"
iser_add ""
wait_for 60 refused
ctl -L
ctl -R -a
if ctl --discover "$ISER_PORTAL" -r; then fail "discovery without CHAP"; fi
entries -u alice -s discoverysecret
echo 0 >"$auth/enforce_discovery_auth"
step "with CHAP"
daemon_stop
