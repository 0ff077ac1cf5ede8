#!/usr/bin/env bash
# Makes the weights that come with the project again: pretraining by the small recipe and a classifier, in one small file.
#
#   bash script_weights.sh [SEED]
#   RUNS=runs/weights OUTPUT=checkpoints/ui_prmd.pth DATA_ROOT=data bash script_weights.sh 1
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;; esac
set -euo pipefail
cd "$(dirname "$0")"
seed=${1:-1}
data_root=${DATA_ROOT:-data}
runs=${RUNS:-runs/weights}
output=${OUTPUT:-checkpoints/ui_prmd.pth}

python pretrain_moco_mask.py --data-root "$data_root" --pre-dataset ui_prmd --recipe small --precision bf16 --seed "$seed" \
    --checkpoint-path "$runs/pretrained" --resume auto
python action_classification.py --data-root "$data_root" --finetune-dataset ui_prmd --seed "$seed" \
    --pretrained "$runs/pretrained/checkpoint_last.pth.tar" --cache-features --batch-size 128 --checkpoint-path "$runs/linear"
rm -f "$output.new"
python -m tools.convert_checkpoint "$runs/linear/classifier.pth" --to encoder --half --output "$output.new"
mv "$output.new" "$output"
