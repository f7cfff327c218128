#!/usr/bin/env bash
# Makes the reference reasoner and its head from nothing: recipes/reference/run.sh OUT
# Every step goes on where it was when the script is started again.
set -euo pipefail
recipe="$(cd "$(dirname "$0")" && pwd)"
out="${1:?give the folder to work in}"
specexit="${SPECEXIT:-specexit}"
mkdir -p "$out"
model="$out/reasoner/model"

# 1. The reasoner.
"$specexit" pretrain --recipe "$recipe" --out "$out/reasoner"

# 2. Its own thoughts about problems of the training split, and where each could have ended.
"$specexit" problems --split train --count 5000 --seed 2001 --out "$out/train.jsonl"
"$specexit" collect --model "$model" --questions "$out/train.jsonl" --out "$out/traces.jsonl" \
  --max-new-tokens 1500 --batch 16
# An answer longer than 24 tokens is a thought that goes on behind its end.
"$specexit" label --model "$model" --traces "$out/traces.jsonl" --out "$out/labels.jsonl" --batch 16 \
  --max-answer-tokens 24 --stable-k 2

# 3. The head.
"$specexit" train --model "$model" --labels "$out/labels.jsonl" --out "$out/head" \
  --epochs 3 --probe-epochs 12 --lr 0.0015 --probe-lr 0.002 \
  --probe mlp
cp "$recipe/policy.json" "$out/head/head/policy.json"
