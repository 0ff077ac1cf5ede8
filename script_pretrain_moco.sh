#!/usr/bin/env bash
# Pretrains all three streams of a data set, each in its own folder, and evaluates each; an interrupted run goes on where it
# stopped when the script is started again. Joint is trained with prompts, bone and motion without, as in the paper.
#
#   bash script_pretrain_moco.sh [DATASET] [PROTOCOL] [more flags of pretrain_moco_mask.py]
#   bash script_pretrain_moco.sh ntu60 cross_view
#   DATA_ROOT=/data RUNS=runs bash script_pretrain_moco.sh pku_v2 cross_subject --epochs 1001 --schedule 801
set -euo pipefail
cd "$(dirname "$0")"
dataset=${1:-ntu60}
protocol=${2:-cross_view}
shift $(($# < 2 ? $# : 2))
data_root=${DATA_ROOT:-data}
runs=${RUNS:-mask_checkpoints}

for stream in joint bone motion; do
    experiment=PCM3_woprompt
    if [ "$stream" = joint ]; then experiment=PCM3_wprompt; fi
    folder="$runs/${dataset}_${protocol}_${stream}"
    python pretrain_moco_mask.py --data-root "$data_root" --pre-dataset "$dataset" --protocol "$protocol" \
        --stream "$stream" --exp-descri "$experiment" --checkpoint-path "$folder" --resume auto \
        --lr 0.02 --batch-size 128 --teacher-t 0.05 --student-t 0.1 --topk 16384 --mlp --contrast-t 0.07 \
        --contrast-k 16384 --schedule 351 --epochs 451 --skeleton-representation graph-based "$@"
    python action_classification.py --data-root "$data_root" --finetune-dataset "$dataset" --protocol "$protocol" \
        --lr 0.1 --pretrained "$folder/checkpoint_last.pth.tar" --checkpoint-path "$folder/linear" \
        --finetune-skeleton-representation graph-based
done
python ensemble.py "$runs/${dataset}_${protocol}_"{joint,bone,motion}/linear
