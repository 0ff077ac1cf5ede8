#!/usr/bin/env bash
# Every downstream task with one encoder, ending in one table ($RUNS/table.md). UI-PRMD is made on first use; another
# data set works for all tasks whose files it has (detection needs its `untrimmed` folder, and is left out without one).
#
#   bash script_downstream.sh                             pretrains small encoders on UI-PRMD first (see below)
#   bash script_downstream.sh CHECKPOINT                  evaluates this encoder (joint stream)
#   BONE=CHECKPOINT MOTION=CHECKPOINT bash script_downstream.sh CHECKPOINT    with the ensemble of three streams
#
#   DATASET, PROTOCOL   what to evaluate on (ui_prmd, cross_subject)
#   DATA_ROOT, RUNS     folders of the data sets (data) and of the runs (runs/downstream)
#   SEEDS               "42", or several, like "1 2 3": every table then has mean and deviation
#   PRETRAIN            flags of the quick pretraining
#   CAUSAL=1            also what only a causal encoder (gru) can do: early recognition, detection in one pass
#   QUICK=1             a few epochs of everything, to see that all of it runs
# A task whose result is there is not run again: an interrupted call goes on where it stopped. Remove $RUNS to start anew.
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;; esac
set -euo pipefail
cd "$(dirname "$0")"
dataset=${DATASET:-ui_prmd}
protocol=${PROTOCOL:-cross_subject}
data_root=${DATA_ROOT:-data}
runs=${RUNS:-runs/downstream}
read -r -a seeds <<<"${SEEDS:-42}"
read -r -a pretrain <<<"${PRETRAIN:---recipe small --hidden-size 128 --num-layers 1 --epochs 16}"
linear=(--seed "${seeds[@]}") finetune=(--seed "${seeds[@]}") detection=(--seed "${seeds[@]}") prediction=(--seed "${seeds[@]}")
if [ -n "${QUICK:-}" ]; then
    pretrain=(--hidden-size 32 --decoder-hidden-size 32 --contrast-k 128 --batch-size 64 --epochs 1 --max-steps 3)
    linear+=(--epochs 2) finetune+=(--epochs 1) detection+=(--epochs 1) prediction+=(--epochs 1)
fi
# The published settings are for sets forty times larger. Linear evaluation: a batch of 1,024 would be one step an epoch on
# UI-PRMD's 1,000 clips. Detection: the rate 0.01 is for PKU-MMD's 944 training videos; UI-PRMD's 30 give a thirtieth of
# the steps in as many epochs.
if [[ "$dataset" = ui_prmd* ]]; then linear+=(--batch-size 64) detection+=(--lr 0.1); fi
results=()

run_task() { # name of the run folder, program, flags
    local name=$1
    shift
    results+=("$runs/$name")
    if [ -e "$runs/$name/result.json" ]; then
        echo "== $name: there already"
        return
    fi
    echo "== $name"
    local first=$1
    shift
    python "$first" --data-root "$data_root" --finetune-dataset "$dataset" --protocol "$protocol" \
        --checkpoint-path "$runs/$name" "$@"
}

pretrain_stream() { # stream -> the checkpoint's path, in $checkpoint
    checkpoint="$runs/pretrained_$1/checkpoint_last.pth.tar"
    local method=PCM3_woprompt # joint with prompts, bone and motion without, as in the paper
    if [ "$1" = joint ]; then method=PCM3_wprompt; fi
    echo "== pretraining, $1 stream"
    python pretrain_moco_mask.py --data-root "$data_root" --pre-dataset "$dataset" --protocol "$protocol" --stream "$1" \
        --exp-descri "$method" --checkpoint-path "$runs/pretrained_$1" --resume auto "${pretrain[@]}"
}

given=${1:-}
# results that are there already must be of the same call
mkdir -p "$runs"
call="$dataset $protocol, seeds ${seeds[*]}, encoder ${given:-own}, bone ${BONE:-}, motion ${MOTION:-}, quick ${QUICK:-}"
if [ -e "$runs/call.txt" ] && [ "$(cat "$runs/call.txt")" != "$call" ]; then
    echo "error: $runs holds results of another call ($(cat "$runs/call.txt")); name another folder: RUNS=FOLDER" >&2
    exit 2
fi
echo "$call" >"$runs/call.txt"
joint=$given bone=${BONE:-} motion=${MOTION:-}
if [ -z "$given" ]; then
    pretrain_stream joint
    joint=$checkpoint
    pretrain_stream bone
    bone=$checkpoint
    pretrain_stream motion
    motion=$checkpoint
fi

run_task linear action_classification.py --pretrained "$joint" --occlusion both ${CAUSAL:+--early} "${linear[@]}"
for share in 0.01 0.1; do
    run_task "semi_$share" action_classification.py --pretrained "$joint" --mode semi --label-fraction "$share" \
        "${finetune[@]}"
done
run_task finetune action_classification.py --pretrained "$joint" --mode finetune "${finetune[@]}"
run_task retrieval action_retrieval.py --pretrained "$joint"
if [[ "$dataset" = ui_prmd* ]] || [ -d "$data_root/$dataset/untrimmed" ]; then
    for mode in tuned frozen ${CAUSAL:+sequence}; do
        run_task "detection_$mode" action_detection.py --pretrained "$joint" --mode "$mode" "${detection[@]}"
    done
else
    echo "== detection: left out, $data_root/$dataset has no untrimmed videos"
fi
run_task prediction motion_prediction.py --pretrained "$joint" --encoder-mode frozen tuned scratch "${prediction[@]}"
if [ -n "$bone" ] && [ -n "$motion" ]; then
    run_task linear_bone action_classification.py --pretrained "$bone" "${linear[@]}"
    run_task linear_motion action_classification.py --pretrained "$motion" "${linear[@]}"
    echo "== ensemble"
    python -m tools.ensemble "$runs"/linear "$runs"/linear_bone "$runs"/linear_motion --output "$runs/ensemble.json"
    results+=("$runs/ensemble.json")
fi
echo "== table ($runs/table.md)"
python -m engine.results "${results[@]}" --output "$runs/table.md"
