#!/usr/bin/env bash
# A whole federation on this machine, from nothing to a finished round: one server, four sites,
# TLS, a key for each. It uses the commands of a real federation, in which the parts marked "site"
# run on other machines.
#
#   bash deploy/federation.sh [DIR]
#
# DIR (out/federation) must not exist yet. PORTS, the ports of gateway, control and dashboard, is
# "8443 8770 8765"; SITES, their names, is "north east south west"; F2L_BIN names a folder that has
# the commands, instead of an installation.
set -euo pipefail
folder=$(realpath -m "${1:-out/federation}")
if [ -e "$folder" ]; then
  echo "error: $folder exists already; name another folder." >&2
  exit 2
fi
if [ -z "${F2L_BIN:-}" ]; then
  source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" demo
  F2L_BIN=$PWD/.venv/bin
fi
PATH=$F2L_BIN:$PATH
read -r gateway control dashboard <<<"${PORTS:-8443 8770 8765}"
sites=${SITES:-north east south west}
mkdir -p "$folder"
cd "$folder"

started=()
finish() {
  for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap finish EXIT
say() { printf '\n== %s\n' "$*"; }

say "data: each site has its own, here 8x8 images of five digits"
python - $sites <<'PYTHON'
import sys
import numpy as np
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)
chance = np.random.default_rng(0)
for site in sys.argv[1:]:
    digits = chance.permutation(10)[:5]
    rows = np.concatenate([np.flatnonzero(labels == digit)[:40] for digit in digits])
    place = np.argsort(digits)
    y = place[np.searchsorted(digits[place], labels[rows])]
    np.savez(f"{site}.npz", x=images[rows].reshape(-1, 8, 8) / 16, y=y)
PYTHON

say "server: settings, authority, identities"
f2l-server init central --address "localhost:$gateway" --listen "127.0.0.1:$gateway" \
  --control "127.0.0.1:$control" \
  --set target.name=mlp --set "target.input_shape=[1, 8, 8]" --set target.classes=5
sed -i "s/^# dashboard = .*/dashboard = $dashboard/" central/federation.toml

say "server: run"
f2l-server run central >server.log 2>&1 &
started+=($!)
for _ in $(seq 240); do
  grep -q '^dashboard' server.log && break
  kill -0 "${started[0]}" 2>/dev/null || break
  sleep 0.5
done
if ! grep -q '^dashboard' server.log; then
  cat server.log >&2
  exit 1
fi
grep -E '^(sites|control|dashboard)' server.log

# The administrator's identity is the folder central/certificates/admin; it may be moved elsewhere.
export F2L_SERVER=localhost:$control F2L_CERTIFICATES=$folder/central/certificates F2L_NAME=admin

for site in $sites; do
  say "administrator: a kit for $site"
  f2l-admin site add "$site" | tee "$site.told"
  # Told by telephone where the site is elsewhere; without the option the site asks in a terminal.
  fingerprint=$(sed -n 's/^fingerprint \([0-9a-f]*\):.*/\1/p' "$site.told")
  say "site $site: register, check, run"
  f2l-site init "$site.kit" --data "$site.npz" --fingerprint "$fingerprint"
  f2l-site check "$site/site.toml" --target mlp
  f2l-site run "$site/site.toml" >"$site.log" 2>&1 &
  started+=($!)
done

say "administrator: a round"
f2l-admin round start --watch
f2l-admin site list
f2l-admin release list

say "site ${sites%% *}: its status, and the messages that have left it"
f2l-site status "${sites%% *}/site.toml"
f2l-site sent "${sites%% *}/site.toml"

say "site ${sites%% *}: a network that is generated for it"
if f2l-admin release list --json | grep '"state": "promoted"' >/dev/null; then
  f2l-site generate "${sites%% *}/site.toml"
else
  echo "none yet: the gate has rejected the release, which more sites or rounds make better"
fi

say "done; all processes end now"
