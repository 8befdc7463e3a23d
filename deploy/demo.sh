#!/usr/bin/env bash
# Installs F2L-Fed and runs a whole federation on real images on this machine.
# Arguments are passed on to `f2l-admin simulate`, for instance --rounds 5 or --out DIR.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" demo

data=mnist5k
if [ -f /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]; then
  data=mnist5k,fashion-mnist
fi
# The default folder is replaced; a folder that is named with --out is not, unless --force is given.
place=(--out out/demo --force)
[[ " $* " == *" --out"* ]] && place=()
exec .venv/bin/f2l-admin simulate --data "$data" --scenario few-shot \
  --sites 100 --held-out 30 --rounds 3 "${place[@]}" "$@"
