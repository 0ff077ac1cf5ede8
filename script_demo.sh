#!/usr/bin/env bash
# Everything once, small: environment, real data, pretraining, a table beside raw joints, a random encoder and the weights that
# come with the project, a picture, a report for the browser. Needs no data, no GPU and, once the environment is there, no
# network. What an earlier call finished is used again.
#
#   bash script_demo.sh
#   RUNS        where the runs go (default runs/demo); remove it to start anew
#   DATA_ROOT   where the prepared data goes (default data)
#   SEED        of everything that is drawn (default 42)
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

echo "== data: UI-PRMD, real clips that come with the program"
python -m data_gen.ui_prmd --data-root "$data_root"

# The recipe for small sets with a smaller encoder and a fifth of its steps, and with the masked view, so that there is a
# decoder whose prediction can be looked at.
checkpoint="$runs/pretrained/checkpoint_last.pth.tar"
echo "== pretraining"
if [ -e "$runs/pretrained/finished" ]; then
    echo "there already: $checkpoint"
else
    python pretrain_moco_mask.py --data-root "$data_root" --pre-dataset ui_prmd \
        --protocol cross_subject --recipe small --hidden-size 128 --num-layers 1 --masked-view --prediction-weight 10 \
        --decoder-hidden-size 64 --epochs 10 --precision fp32 --print-freq 62 --save-every-minutes 1 --seed "$seed" \
        --checkpoint-path "$runs/pretrained" --resume auto
    touch "$runs/pretrained/finished"
fi

# (One thread: products this small gain nothing from two, which wait for each other.)
# Twenty classes: each exercise, done correctly or incorrectly, by people that no encoder has seen. Beside raw joints and a
# random encoder, because pretraining is worth what it gives above them.
echo "== what the encoder is worth, beside what anybody has without it"
python -m tools.visualize "$checkpoint" --data-root "$data_root" --output "$runs/prediction.png" >"$runs/picture.txt" 2>&1 &
picture=$!
trap 'kill "$picture" 2>/dev/null || true' EXIT
if [ -e "$runs/baselines/result.json" ]; then
    echo "there already: $runs/baselines"
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
