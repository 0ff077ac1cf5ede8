#!/usr/bin/env bash
# Everything once, small: environment, real data, pretraining, evaluation beside a random encoder, a picture, a report for
# the browser, one table. Needs no data, no GPU and, once the environment is there, no network. What an earlier call finished is used again.
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

# Products this small gain little from threads, which wait for each other after every one. So pretraining shares its batches
# between two processes, which compute what one computes, and evaluations run side by side, each with half of the processors.
# (With a GPU, one process: two would need two of them.)
processors=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
half=$(((processors + 1) / 2))
launch=(python)
if [ "$processors" -gt 1 ] && ! command -v nvidia-smi >/dev/null; then
    export OMP_NUM_THREADS=$half
    launch=(python -m engine.launch --processes 2) # not torchrun, which waits for ever where the host's name is not known
fi

# A small encoder and few steps: AdamW instead of SGD, a faster key encoder, a queue below the number of clips, milder views.
size=(--hidden-size 128 --num-layers 1)
checkpoint="$runs/pretrained/checkpoint_last.pth.tar"
echo "== pretraining"
if [ -e "$runs/pretrained/finished" ]; then
    echo "there already: $checkpoint"
else
    "${launch[@]}" pretrain_moco_mask.py --threads "$half" --data-root "$data_root" --pre-dataset ui_prmd \
        --protocol cross_subject "${size[@]}" \
        --decoder-hidden-size 64 --batch-size 64 --contrast-k 512 --topk 512 --contrast-m 0.99 --optimizer adamw --lr 0.003 \
        --epochs 24 --schedule 20 --shear 0.5 --corruption 0.3 --print-freq 56 --save-every-minutes 1 --seed "$seed" \
        --checkpoint-path "$runs/pretrained" --resume auto
    touch "$runs/pretrained/finished"
fi

names=() jobs=()
trap 'for job in ${jobs[@]+"${jobs[@]}"}; do kill "$job" 2>/dev/null || true; done' EXIT

begin() { # name, command: starts it beside what runs already; its output waits in RUNS/NAME.txt
    names+=("$1")
    "${@:2}" >"$runs/$1.txt" 2>&1 </dev/null &
    jobs+=($!)
}

finish() { # waits for what was begun and shows what it said; ends with the status of the first that failed
    local i status failed=0
    for i in "${!jobs[@]}"; do
        status=0
        wait "${jobs[$i]}" || status=$?
        echo "== ${names[$i]}"
        cat "$runs/${names[$i]}.txt"
        [ "$failed" != 0 ] || failed=$status
    done
    names=() jobs=()
    [ "$failed" = 0 ] || exit "$failed"
}

evaluate() { # name, program, flags
    local name=$1 program=$2
    shift 2
    if [ -e "$runs/$name/result.json" ]; then
        begin "$name" echo "there already: $runs/$name"
        return
    fi
    begin "$name" python "$program" --data-root "$data_root" --finetune-dataset ui_prmd_quality --protocol cross_subject \
        --threads "$half" --checkpoint-path "$runs/$name" "$@"
}
# the linear protocol, with a batch that fits 1,000 clips and fewer epochs than the paper's 100
echo "== evaluation and a picture, side by side"
fewer=(--epochs 40 --schedule 20 32 --batch-size 64 --seed "$seed")
evaluate linear_pretrained action_classification.py --pretrained "$checkpoint" "${fewer[@]}"
evaluate linear_random action_classification.py "${size[@]}" "${fewer[@]}"
evaluate nearest_pretrained action_retrieval.py --pretrained "$checkpoint"
evaluate nearest_random action_retrieval.py "${size[@]}" --seed "$seed"
begin picture python visualize.py "$checkpoint" --data-root "$data_root" --output "$runs/prediction.png"
finish
python report.py "$runs" --data-root "$data_root" --output "$runs/report.html"

echo
python -m engine.results "$runs/linear_pretrained" "$runs/linear_random" "$runs/nearest_pretrained" "$runs/nearest_random"
echo "demo finished in $((SECONDS - ready)) s (environment $((ready - start)) s); runs, prediction.png and report.html are in $runs"
