#!/usr/bin/env bash
# Writes the bill of materials of .venv (CycloneDX 1.6, JSON) to the file named in $1, by default
# out/sbom.json: every installed package with its version, licence and package URL.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev

out=${1:-out/sbom.json}
mkdir -p "$(dirname "$out")"
.venv/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
  --spec-version 1.6 --output-reproducible --output-file "$out" .venv/bin/python
echo "bill of materials in $out"
