#!/usr/bin/env bash
# Plays simulated sessions, does FAULTS faults to the real thing in each campaign, then
# repeats the tests in random order with the race detector until SOAKTIME is over. The
# first failure ends it, and its seed is in the output.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
case ${SOAKTIME:=10m} in
*h) limit=$((${SOAKTIME%h} * 3600)) ;;
*m) limit=$((${SOAKTIME%m} * 60)) ;;
*) limit=${SOAKTIME%s} ;;
esac
mapfile -t packages < <("$go" list ./... | grep -v '^iscsictl/test/vm')
echo "soak: a million simulated runs (SIM_RUNS, SIM_FIRST)"
SIM_RUNS=${SIM_RUNS:-1000000} "$go" test -count=1 -timeout 0 -v -run TestSeeds ./test/simulation
echo "soak: campaigns of ${FAULTS:=100} faults each (CAMPAIGN_SEED)"
CAMPAIGN_FAULTS=$FAULTS "$go" run ./test/report -race -count=1 -timeout 0 -run '^TestCampaign$' ./test/e2e
rounds=0 SECONDS=0
while [ "$SECONDS" -lt "$limit" ]; do
	SOAKTIME=$SOAKTIME "$go" run ./test/report -race -count=1 -shuffle=on -p 1 -timeout 30m "${packages[@]}"
	rounds=$((rounds + 1))
	echo "soak: round $rounds done after $SECONDS s"
done
echo "soak: $rounds rounds in $SECONDS s: no failure"
