#!/usr/bin/env bash
# Installs F2L-Fed with its development tools and runs lint, types and all tests: first those
# that need a moment each, on all cores, then those that start clusters, servers and simulations,
# two files at a time, since they wait as much as they work.
# Arguments are handed on to a single pytest instead, for instance -m "not deployment" or -k zoo.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
if [ $# -gt 0 ]; then
  exec .venv/bin/pytest "$@"
fi
.venv/bin/pytest -n auto -m "not ray and not deployment and not slow"
exec .venv/bin/pytest -n 2 --dist loadfile -m "ray or deployment or slow"
