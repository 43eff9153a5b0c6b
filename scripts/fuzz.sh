#!/usr/bin/env bash
# Runs every fuzz target of the project for FUZZTIME (default 10s) each.
set -euo pipefail
cd "$(dirname "$0")/.."
count=0
while IFS=: read -r file name; do
	go test -run '^$' -fuzz "^${name}\$" -fuzztime "${FUZZTIME:-10s}" "./$(dirname "$file")"
	count=$((count + 1))
done < <(grep -RoHE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's/^\.\///; s/func //')
if [ "$count" -gt 12 ]; then
	echo "fuzz: $count targets, at most 12 are wanted" >&2
	exit 1
fi
echo "fuzz: $count targets"
