#!/usr/bin/env bash
# Runs every fuzz target of the tree for FUZZTIME, one after another.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go} time=${FUZZTIME:-10s} n=0
while IFS=: read -r file target; do
	printf '== %s %s\n' "$file" "$target"
	"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")"
	n=$((n + 1))
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/func //' | sort)
if [ "$n" -eq 0 ]; then
	echo "fuzz: no fuzz target found" >&2
	exit 1
fi
echo "fuzz: $n targets, $time each: no failure"
