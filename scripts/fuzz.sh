#!/usr/bin/env bash
# Runs every fuzz target of the repository for FUZZTIME (default 20s) each.
set -euo pipefail

time=${FUZZTIME:-20s}
grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do
	for target in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$file"); do
		echo "== $target ($(dirname "$file"))"
		go test -fuzzminimizetime 5x -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$(dirname "$file")"
	done
done
