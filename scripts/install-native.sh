#!/usr/bin/env bash
# Puts what was built beside the sources, each file by one rename, so that a program that has the old one mapped keeps it.
#   install-native.sh BUILD DESTINATION
set -euo pipefail
for name in sampler.bpf.o _unspool.so; do
  cmp -s "$1/$name" "$2/$name" && continue
  cp "$1/$name" "$2/.$name.new"
  mv "$2/.$name.new" "$2/$name"
done
