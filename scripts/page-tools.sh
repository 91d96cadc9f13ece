#!/usr/bin/env bash
# What checks and builds the page of ui/: its npm packages, as ui/package-lock.json names them. Needs npm; a node older than 20 cannot build it.
set -euo pipefail
cd "$(dirname "$0")/../ui"

major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
if [ "$major" -lt 20 ]; then
  echo "setup: node $major is too old for the page's tools: the page is not built or unit-tested here"
  exit 0
fi
wanted=$(sha256sum <package-lock.json)
if [ "$(cat node_modules/.installed 2>/dev/null)" != "$wanted" ]; then
  echo "setup: installing npm packages into ui/node_modules"
  npm ci --silent --no-audit --no-fund --ignore-scripts >/dev/null
  echo "$wanted" >node_modules/.installed
fi
