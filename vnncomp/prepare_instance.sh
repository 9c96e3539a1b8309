#!/usr/bin/env bash
# prepare_instance.sh v1 CATEGORY ONNX VNNLIB: nothing is converted; exit code 1 where a file is not there.
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "prepare_instance.sh: expected the version v1, not '${1:-}'" >&2; exit 1; }
for file in "$3" "$4"; do
  [ -r "$file" ] || { echo "prepare_instance.sh: cannot read $file" >&2; exit 1; }
  cat "$file" > /dev/null # into the cache of files
done
