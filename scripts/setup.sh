#!/usr/bin/env bash
# Installs what `make demo` and `make` need, and says what: Debian packages for the build, and a virtual environment in .venv.
#   setup.sh            packages of the build and .venv with the project
#   setup.sh --tests    and the oracles of the test suite
set -euo pipefail
cd "$(dirname "$0")/.."

build=(clang libbpf-dev libelf-dev zlib1g-dev linux-libc-dev gcc g++ make cmake pkg-config)
tests=()
if [ "${1:-}" = --tests ]; then
  # One name a line in scripts/test-packages.txt, with its reason.
  mapfile -t tests < <(sed 's/#.*//' scripts/test-packages.txt | awk 'NF { print $1 }')
fi

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; return; fi
  command -v sudo >/dev/null || { echo "setup: $* needs root, and there is no sudo here" >&2; exit 1; }
  sudo "$@"
}

missing=()
for package in "${build[@]}" "${tests[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "setup: installing Debian packages: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3.12 python3.13 python3.14 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
  done
fi
if [ -z "$python" ] || ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  echo "setup: installing Debian packages: python3 python3-venv"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null
  python=python3
fi

stamp=.venv/.setup
wanted=$(cat pyproject.toml scripts/setup.sh | sha256sum)
if [ ! -x .venv/bin/python ] || [ "$(cat $stamp 2>/dev/null)" != "$wanted" ]; then
  echo "setup: installing Python packages into .venv ($("$python" --version))"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
  .venv/bin/python scripts/requirements.py >.venv/requirements.txt
  .venv/bin/python -m pip install -q --disable-pip-version-check -r .venv/requirements.txt
  # The sources themselves are what runs: no copy of them is installed, `make native` builds into them.
  site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  echo "$PWD/src" >"$site/unspool.pth"
  printf '#!%s\nimport sys\nfrom unspool.cli.main import main\nsys.exit(main())\n' "$PWD/.venv/bin/python" >.venv/bin/unspool
  chmod +x .venv/bin/unspool
  echo "$wanted" >$stamp
fi
if [ "${1:-}" = --tests ]; then scripts/export-peers.sh; scripts/page-tools.sh; fi
