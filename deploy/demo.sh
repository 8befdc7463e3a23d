#!/usr/bin/env bash
# Installs F2L-Fed and runs a whole federation on real images on this machine.
# Arguments are passed on to `f2l-admin simulate`, for instance --rounds 5 or --out DIR. With
# --backbone first, heads on a pretrained network are generated: see deploy/backbone/demo.sh.
if [ "${1:-}" = --backbone ]; then
  exec bash "$(dirname "${BASH_SOURCE[0]}")/backbone/demo.sh" "${@:2}"
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" demo

data=mnist5k
if [ -f /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]; then
  data=mnist5k,fashion-mnist
fi
# The default folder is replaced; a folder that is named with --out is not, unless --force is given.
place=(--out out/demo --force)
[[ " $* " == *" --out"* ]] && place=()
# Sites learn from all of their examples and measure on further ones, so that the figures are those
# of the published measurements; without these settings each would keep a fifth aside.
separate=(--set split.validation_fraction=0 --set split.minimum_examples=1)
exec .venv/bin/f2l-admin simulate --data "$data" --scenario few-shot "${separate[@]}" \
  --sites 100 --held-out 30 --rounds 3 "${place[@]}" "$@"
