#!/usr/bin/env bash
# Rewrites src/unspool/export/profile_pb2.py from profile.proto, which is github.com/google/pprof's (Apache-2.0), unchanged.
set -euo pipefail
cd "$(dirname "$0")/../src"
../.venv/bin/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. unspool/export/profile.proto
