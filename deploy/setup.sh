# Makes .venv in the project's folder, or the environment $VENV names, and installs the project with
# the extras named in $1. To be sourced, from any folder; changes the working directory to the project's folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=$1
venv=${VENV:-.venv}
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: Python 3.11 or newer is needed; set PYTHON to one." >&2
  exit 1
fi

stamp=$venv/.installed-$extras
if ! sha256sum --check --status "$stamp" 2>/dev/null; then
  echo "Installing into $venv (a few minutes the first time) …"
  if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv"
  fi
  locks=(--requirement deploy/requirements.lock)
  if [ "$extras" = dev ]; then
    locks+=(--requirement deploy/requirements-dev.lock)
  fi
  install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
  # Every file is compared with its SHA-256. torch stands apart: its build differs by machine.
  install --no-deps --require-hashes "${locks[@]}"
  install --constraint deploy/constraints.txt torch
  install --no-deps --no-build-isolation --editable .
  sha256sum pyproject.toml deploy/constraints.txt deploy/*.lock >"$stamp"
fi
