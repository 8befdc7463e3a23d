#!/usr/bin/env bash
# Installs F2L-Fed with its development tools and runs lint, types and all tests: one worker more
# than there are cores, each with one file at a time. Those that start clusters, servers and
# simulations come first (see tests/conftest.py); they wait as much as they work.
# Arguments are handed on to a single pytest instead, for instance -m "not deployment" or -k zoo.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev

# Each of the many processes that tests start would compile the project for itself.
unset PYTHONDONTWRITEBYTECODE
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
if [ $# -gt 0 ]; then
  exec .venv/bin/pytest "$@"
fi
exec .venv/bin/pytest -n $(($(nproc) + 1)) --dist loadfile --no-loadscope-reorder
