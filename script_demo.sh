#!/usr/bin/env bash
# A small demo of everything: environment, real data, pretraining, a table that compares the encoder with raw joints, a random
# encoder and the weights that come with the project, a picture, and a report for the browser. It needs no data, no GPU and,
# once the environment is installed, no network. Results of an earlier call are used again.
#
#   bash script_demo.sh
#   RUNS        folder for the runs (default runs/demo); remove it to start from scratch
#   DATA_ROOT   folder for the prepared data (default data)
#   SEED        seed of all programs (default 42)
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;; esac
set -euo pipefail
cd "$(dirname "$0")"
runs=${RUNS:-runs/demo}
data_root=${DATA_ROOT:-data}
seed=${SEED:-42}
start=$SECONDS

source ./script_environment.sh
make_environment requirements.txt
ready=$SECONDS

echo "== data: UI-PRMD, real clips that come with the project"
python -m data_gen.ui_prmd --data-root "$data_root"

# The recipe for small sets with a smaller encoder, a fifth of its steps, trained on one side (which takes half the time), and
# with the prediction of hidden joints, which the picture shows.
checkpoint="$runs/pretrained/checkpoint_last.pth.tar"
echo "== pretraining"
if [ -e "$runs/pretrained/finished" ]; then
    echo "already finished: $checkpoint"
else
    python pretrain_moco_mask.py --data-root "$data_root" --pre-dataset ui_prmd \
        --protocol cross_subject --recipe small --hidden-size 128 --num-layers 1 --no-train-both-sides --prediction-weight 10 \
        --decoder-hidden-size 64 --epochs 10 --precision fp32 --print-freq 62 --save-every-minutes 1 --seed "$seed" \
        --checkpoint-path "$runs/pretrained" --resume auto
    touch "$runs/pretrained/finished"
fi

# Twenty classes: each exercise, executed correctly or incorrectly, by people that no encoder has seen. Pretraining helps as far
# as it is better than raw joints and a random encoder. One thread, because two are not faster for matrices of this size.
echo "== the encoder compared with baselines that need no pretraining"
python -m tools.visualize "$checkpoint" --data-root "$data_root" --output "$runs/prediction.png" >"$runs/picture.txt" 2>&1 &
picture=$!
trap 'kill "$picture" 2>/dev/null || true' EXIT
if [ -e "$runs/baselines/result.json" ]; then
    echo "already finished: $runs/baselines"
    cat "$runs/baselines/table.md"
else
    python -m engine.baselines --threads 1 --data-root "$data_root" --finetune-dataset ui_prmd_quality \
        --protocol cross_subject --pretrained "$checkpoint" ui_prmd --seed "$seed" --checkpoint-path "$runs/baselines"
fi
status=0
wait "$picture" || status=$?
cat "$runs/picture.txt"
[ "$status" = 0 ] || exit "$status"
python -m tools.report "$runs" --data-root "$data_root" --output "$runs/report.html"
echo "demo finished in $((SECONDS - ready)) s (environment $((ready - start)) s); runs, prediction.png and report.html are in $runs"
