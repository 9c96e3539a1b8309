#!/usr/bin/env bash
# run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT: RESULTS gets one of unsat, sat, unknown, timeout, error on
# its first line and after sat the counterexample ((X_0 v) ... (Y_0 v)). VERIFY is the command (otherwise .venv's).
set -uo pipefail
[ "${1:-}" = v1 ] || { echo "run_instance.sh: expected the version v1, not '${1:-}'" >&2; exit 1; }
onnx=$3 vnnlib=$4 results=$5 seconds=$6
verify=${VERIFY:-$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/verify}
found=$(mktemp "$results.XXXXXX") || exit 1
timeout --kill-after=2 "$seconds" "$verify" "$onnx" "$vnnlib" --timeout "$seconds" --format vnncomp > "$found"
code=$?
case $code in
  0 | 1 | 3 | 4) ;;                         # holds, violated, unknown, timeout: verify has written it
  124 | 130 | 137) echo timeout > "$found" ;; # stopped from outside
  *) echo error > "$found" ;;
esac
[ -s "$found" ] || echo error > "$found"
mv "$found" "$results"
