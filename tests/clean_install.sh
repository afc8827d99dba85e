#!/usr/bin/env bash
# The wheel where nothing of this project is: installed into a new environment, and trained with from an empty folder.
# usage: clean_install.sh WHEEL CONSTRAINTS TORCH TORCH_INDEX
set -euo pipefail
wheel=$(realpath "$1") constraints=$(realpath "$2") torch=$3 index=$4
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
pip="$place/venv/bin/pip"
"$pip" install -q "$torch" || "$pip" install -q --index-url "$index" "$torch"
"$pip" install -q -c "$constraints" "$wheel[cpu]"
mkdir "$place/empty" && cd "$place/empty"
export PATH="$place/venv/bin:$PATH" PYTHONNOUSERSITE=1
rc-grpo --version
rc-grpo config pocket > resolved.yaml
rc-grpo train pocket --set name=clean --set loop.updates=1 --set loop.groups_per_update=2 --set evaluation.tasks=4
test -s runs/clean/summary.json
test -s runs/clean/lora/pytorch_lora_weights.safetensors
rc-grpo report runs/clean --out report.html
test -s report.html
echo "installed, trained and reported in $place/empty"
