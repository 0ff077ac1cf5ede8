#!/usr/bin/env bash
# Evaluates one encoder on every downstream task and writes one table ($RUNS/table.md). UI-PRMD is prepared on first use. With
# another data set, tasks whose files it lacks are skipped (detection needs a folder `untrimmed`).
#
#   bash script_downstream.sh                             pretrains small encoders on UI-PRMD first (see below)
#   bash script_downstream.sh CHECKPOINT                  evaluates this encoder (joint stream)
#   BONE=CHECKPOINT MOTION=CHECKPOINT bash script_downstream.sh CHECKPOINT    with the ensemble of three streams
#
#   DATASET, PROTOCOL   what to evaluate on (ui_prmd, cross_subject)
#   DATA_ROOT, RUNS     folders of the data sets (data) and of the runs (runs/downstream)
#   SEEDS               "42", or several, such as "1 2 3", for mean and standard deviation in every table
#   PRETRAIN            flags of the quick pretraining
#   CAUSAL=1            also the tasks of causal encoders (gru): early recognition, detection in one pass
#   QUICK=1             only a few epochs of everything, to test that all of it runs
# Finished tasks are not run again: repeat an interrupted call to resume it. Remove $RUNS to start from scratch.
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
# The published settings are for sets that are forty times larger. Linear evaluation: with batches of 1,024, an epoch of
# UI-PRMD's 1,000 clips would be one step. Detection: the learning rate 0.01 is for PKU-MMD's 944 training videos; UI-PRMD's 30
# videos have a thirtieth of the steps in each epoch.
if [[ "$dataset" = ui_prmd* ]]; then linear+=(--batch-size 64) detection+=(--lr 0.1); fi
results=()

run_task() { # name of the run folder, program, flags
    local name=$1
    shift
    results+=("$runs/$name")
    if [ -e "$runs/$name/result.json" ]; then
        echo "== $name: already finished"
        return
    fi
    echo "== $name"
    local first=$1
    shift
    python "$first" --data-root "$data_root" --finetune-dataset "$dataset" --protocol "$protocol" \
        --checkpoint-path "$runs/$name" "$@"
}

pretrain_stream() { # stream; sets $checkpoint to the checkpoint's path
    checkpoint="$runs/pretrained_$1/checkpoint_last.pth.tar"
    local method=PCM3_woprompt # joint with prompts, bone and motion without, as in the paper
    if [ "$1" = joint ]; then method=PCM3_wprompt; fi
    echo "== pretraining, $1 stream"
    python pretrain_moco_mask.py --data-root "$data_root" --pre-dataset "$dataset" --protocol "$protocol" --stream "$1" \
        --exp-descri "$method" --checkpoint-path "$runs/pretrained_$1" --resume auto "${pretrain[@]}"
}

given=${1:-}
# existing results must be from the same call
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
    echo "== detection: skipped, $data_root/$dataset has no untrimmed videos"
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
