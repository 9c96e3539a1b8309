#!/usr/bin/env bash
# install_tool.sh v1: makes .venv beside this folder; the script of the competition that is run once, with a network.
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "install_tool.sh: expected the version v1, not '${1:-}'" >&2; exit 1; }
cd "$(dirname "$0")/.."
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet -c constraints.txt -e .
.venv/bin/verify --version
