#!/usr/bin/env bash
# Pretrains and evaluates all three streams of a data set, each in its own folder, and fuses them. Run it again to resume an
# interrupted call. Joint is trained with prompts, bone and motion without, as in the paper.
#
#   bash script_pretrain_moco.sh [DATASET] [PROTOCOL] [more flags of pretrain_moco_mask.py]
#   bash script_pretrain_moco.sh ntu60 cross_view
#   DATA_ROOT=/data RUNS=runs bash script_pretrain_moco.sh pku_v2 cross_subject --epochs 1001 --schedule 801
#   PROCESSES=8 bash script_pretrain_moco.sh ntu60 cross_view       # one process for each of eight GPUs
#   SEEDS="1 2 3" bash script_pretrain_moco.sh ntu60 cross_view     # three pretrainings, and a table of their results
#
#   DATA_ROOT, RUNS   folders of the data sets (data) and of the runs (mask_checkpoints)
#   SEEDS             seeds of pretraining: each has a folder RUNS/seedK, and the last table has mean and standard deviation
#   STREAMS           the streams ("joint bone motion"); if these are all three, they are fused
#
# Schedulers: SIGUSR1, SIGTERM or SIGINT, to this script, to all of its processes, or to both, stops it after saving, with exit
# status 75: "run again". examples/slurm_pretrain.sh is a job for SLURM that is stopped before its time limit and requeued.
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;; esac
set -euo pipefail
cd "$(dirname "$0")"
dataset=${1:-ntu60}
protocol=${2:-cross_view}
shift $(($# < 2 ? $# : 2))
data_root=${DATA_ROOT:-data}
read -r -a streams <<<"${STREAMS:-joint bone motion}"
processes=${PROCESSES:-1}

# Commands run in the background, because Bash handles signals only after a foreground command has ended.
child=
stopped=
stop() {
    stopped=yes
    if [ -n "$child" ]; then kill -s "$1" "$child" 2> /dev/null || true; fi
}
trap 'stop TERM' TERM INT # commands in the background ignore SIGINT
trap 'stop USR1' USR1

run() {
    if [ -n "$stopped" ]; then exit 75; fi
    "$@" &
    child=$!
    if [ -n "$stopped" ]; then kill "$child" 2> /dev/null || true; fi
    local status
    while true; do
        status=0
        wait "$child" || status=$?
        kill -0 "$child" 2> /dev/null || break # otherwise a signal has ended `wait`, and the command still runs
    done
    child=
    if [ -n "$stopped" ] && [ "$status" -ge 128 ]; then status=75; fi # the signal has ended the command, or `wait`
    if [ "$status" = 75 ]; then echo "stopped; run the same command again to resume"; fi
    if [ "$status" != 0 ]; then exit "$status"; fi
}

train_and_test() { # folder for the runs, more flags of pretraining
    local runs=$1 stream experiment folder
    shift
    for stream in "${streams[@]}"; do
        experiment=PCM3_woprompt
        if [ "$stream" = joint ]; then experiment=PCM3_wprompt; fi
        folder="$runs/${dataset}_${protocol}_${stream}"
        run python -m engine.launch --processes "$processes" pretrain_moco_mask.py \
            --data-root "$data_root" --pre-dataset "$dataset" --protocol "$protocol" \
            --stream "$stream" --exp-descri "$experiment" --checkpoint-path "$folder" --resume auto \
            --lr 0.02 --batch-size 128 --teacher-t 0.05 --student-t 0.1 --topk 16384 --mlp --contrast-t 0.07 \
            --contrast-k 16384 --schedule 351 --epochs 451 --skeleton-representation graph-based "$@"
        if [ "$folder/linear/result.json" -nt "$folder/checkpoint_last.pth.tar" ]; then continue; fi # evaluated already
        run python action_classification.py --data-root "$data_root" --finetune-dataset "$dataset" --protocol "$protocol" \
            --lr 0.1 --pretrained "$folder/checkpoint_last.pth.tar" --checkpoint-path "$folder/linear" \
            --finetune-skeleton-representation graph-based --resume auto
    done
    if [ "${streams[*]}" = "joint bone motion" ]; then
        run python -m tools.ensemble "$runs/${dataset}_${protocol}_"{joint,bone,motion}/linear
    fi
}

runs=${RUNS:-mask_checkpoints}
if [ -z "${SEEDS:-}" ]; then
    train_and_test "$runs" "$@"
else
    read -r -a seeds <<<"$SEEDS"
    for seed in "${seeds[@]}"; do train_and_test "$runs/seed$seed" --seed "$seed" "$@"; done
    run python -m engine.results "${seeds[@]/#/$runs/seed}" --seeds
fi
