#!/usr/bin/env bash
# Installs the programs whose formats Unspool writes, so that the tests can open each export in its real reader:
# speedscope and the Firefox Profiler's command line from npm into build/peers, and Go's pprof.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
missing=()
command -v npm >/dev/null || missing+=(nodejs npm)
command -v go >/dev/null || [ -x /usr/local/go/bin/go ] || missing+=(golang-go)
if [ "${#missing[@]}" -gt 0 ]; then
  echo "setup: installing Debian packages: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

packages=(speedscope@1.25.0 @firefox-devtools/profiler-cli@0.10.0)
mkdir -p build/peers
if [ "$(cat build/peers/.installed 2>/dev/null)" != "${packages[*]}" ]; then
  echo "setup: installing npm packages into build/peers: ${packages[*]}"
  npm install --prefix build/peers --silent --no-audit --no-fund --ignore-scripts "${packages[@]}" >/dev/null
  echo "${packages[*]}" >build/peers/.installed
fi

# Go builds its pprof at the first call, which takes a minute.
PATH="$PATH:/usr/local/go/bin" go tool pprof -h >/dev/null 2>&1 || true
