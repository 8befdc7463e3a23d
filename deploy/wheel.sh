#!/usr/bin/env bash
# Builds sdist and wheel, checks them, installs the wheel into an empty environment and runs a small
# federation with it, in a folder outside the project:
#
#   bash deploy/wheel.sh [DIR]
#
# DIR (dist) gets the two files. The environments are temporary.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
project=$PWD
dist=$(realpath -m "${1:-dist}")
python=${PYTHON:-python3}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"$python" -m venv "$place/tools"
"$place/tools/bin/pip" install --quiet --disable-pip-version-check build twine
"$place/tools/bin/python" -m build --outdir "$dist" "$project"
"$place/tools/bin/twine" check --strict "$dist"/*

"$python" -m venv "$place/empty"
wheel=$(ls -t "$dist"/*.whl | head -1)
"$place/empty/bin/pip" install --quiet --disable-pip-version-check \
  --constraint deploy/constraints.txt "$wheel[demo]"
"$place/empty/bin/pip" check
cd "$place"
for program in empty/bin/f2l-*; do
  "$program" --version
done
empty/bin/f2l-admin simulate --data digits --sites 10 --held-out 3 --rounds 1 --out out
echo "$wheel installs and runs"
