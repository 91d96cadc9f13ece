#!/usr/bin/env bash
# `make demo`: sets up, builds, records Debian's perl under load and the system around it, prints the report and writes a flame graph.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${DEMO_SECONDS:-5}
output=${DEMO_OUTPUT:-build/demo}
mkdir -p "$output"

run_as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "demo: recording needs root, and there is no sudo here" >&2; exit 1; }
  echo "demo: recording needs root, so it runs under sudo"
  run_as_root=(sudo)
fi

# A workload nobody here wrote the interpreter of: regular expressions, hashes and sorting in perl.
workload='my %h; my $t = time + shift; my $i = 0;
while (time < $t) { for (1 .. 2000) { my $s = join ",", map { $_ * $i % 97 } 1 .. 12; $h{$1}++ while $s =~ /(\d+),/g; $i++ }
                    my @k = sort { $h{$a} <=> $h{$b} } keys %h; }'

rm -f "$output/demo.unspool"
echo "demo: recording perl and the whole system for $seconds seconds"
"${run_as_root[@]}" .venv/bin/unspool record -a -F 499 -o "$output/demo.unspool" -- perl -e "$workload" "$seconds"
if [ "${#run_as_root[@]}" -gt 0 ]; then sudo chown "$(id -u):$(id -g)" "$output/demo.unspool"; fi
echo
.venv/bin/unspool report "$output/demo.unspool"
rm -f "$output/demo.html"
.venv/bin/unspool export "$output/demo.unspool" --format html -o "$output/demo.html"
echo
echo "demo: the flame graph is in $PWD/$output/demo.html (open it in a browser)"
echo "demo: more of it: .venv/bin/unspool report --tree $output/demo.unspool"
