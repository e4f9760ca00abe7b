#!/usr/bin/env bash
# What a FLOP budget buys: tiny pretrained on all of DATA (a folder with a manifest.tsv), then words on the rows of one
# SOURCE of the manifest, by ridge regression on speakers never heard; the mean over three seeds.
#   bench/words.sh PROGRAM DATA SOURCE OUT [budget:batch-rows…]
# Beside it: a PyTorch program's means for the same recipe and FLOPs, its best layer on test: 68.3 % at 1e13, 76.1 % at 4e13.
set -euo pipefail
program=$1 data=$(realpath "$2") source=$3 out=$4
shift 4
budgets=("${@:-1e13:1000}")
mkdir -p "$out"
awk -F'\t' -v OFS='\t' -v root="$data/" -v source="$source" '
  NR == 1 { for (i = 1; i <= NF; ++i) column[$i] = i; print; next }
  $column["source"] == source { $column["path"] = root $column["path"]; print }' "$data/manifest.tsv" > "$out/words.tsv"
probe() { "$program" probe --task words --data "$out/words.tsv" --features "$1" --json | tee -a "$out/results.jsonl"; }
echo "log-mel"; probe logmel
for seed in 1 2 3; do echo "untrained, seed $seed"; "$program" probe --task words --data "$out/words.tsv" --features untrained:tiny --seed $seed --json | tee -a "$out/results.jsonl"; done
for entry in "${budgets[@]}"; do
  budget=${entry%:*} rows=${entry#*:}
  for seed in 1 2 3; do
    run=$out/$budget-$seed
    "$program" pretrain --model tiny --data "$data" --budget "${budget}flop" --batch-rows "$rows" --seed $seed --out "$run" --json > "$run.jsonl"
    echo "pretrained, $budget, seed $seed: $(tail -n 1 "$run.jsonl")"
    probe "$run"
  done
done
