#!/usr/bin/env bash
# Installs F2L-Fed with its development tools and runs lint, types and all tests.
# Arguments are handed on to pytest, for instance -m "not deployment" or -k zoo.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
exec .venv/bin/pytest "$@"
