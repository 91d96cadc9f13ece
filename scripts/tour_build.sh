#!/bin/sh
# A small build with many short processes, for the pictures of docs/tour.md: `tour_build.sh OPTIMISATION COMPRESSION`.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for round in 1 2; do
  for file in bench/programs/*.c tests/programs/*.c; do gcc "$1" -g -w -c "$file" -o "$work/a.o" 2>/dev/null || true; done
  /usr/bin/python3 -X pycache_prefix="$work/$round" -m compileall -q -f src/unspool/cli src/unspool/web
  tar -c src docs | xz "$2" >"$work/a.xz"
done
