#!/usr/bin/env bash
# Installs F2L-Fed with its development tools and runs lint, types and all tests: one worker more
# than there are cores, each with one file at a time. Those that start clusters, servers and
# simulations come first (see tests/conftest.py); they wait as much as they work.
# A fast part of the tests follows with every other Python of 3.11 to 3.13 that is on PATH, each in
# an environment of its own (.venv-3.12 and so on).
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
.venv/bin/pytest -n $(($(nproc) + 1)) --dist loadfile --no-loadscope-reorder

fast=(tests/unit/test_programs.py tests/unit/test_house.py tests/unit/f2l_fed/{core,wire}
  tests/unit/f2l_fed/data/readers tests/unit/f2l_fed/zoo/test_zoo.py
  tests/unit/clients/{commands,onboarding} tests/unit/server/{control,membership,pki}
  tests/integration/test_protocols.py)
own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in 3.11 3.12 3.13; do
  # A version manager may have a command of this name that only says that there is no such version.
  if [ "$version" = "$own" ] || ! "python$version" -c '' 2>/dev/null; then
    continue
  fi
  echo "Python $version: a fast part of the tests"
  # With a shell of its own: the installation changes variables.
  (PYTHON=python$version VENV=.venv-$version source deploy/setup.sh dev)
  .venv-$version/bin/pytest -q -n $(($(nproc) + 1)) --dist loadfile "${fast[@]}"
done
