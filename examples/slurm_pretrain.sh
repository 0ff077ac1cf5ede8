#!/usr/bin/env bash
# Pretraining under SLURM: three seeds in parallel, each in consecutive jobs of eight hours until it is done.
#
#   sbatch examples/slurm_pretrain.sh [DATASET] [PROTOCOL] [more flags of pretrain_moco_mask.py]
#   python -m engine.results mask_checkpoints --seeds           mean and deviation over the seeds, when all are done
#
# Five minutes before the time limit, SLURM sends SIGUSR1 to the running program. It finishes its step, saves and exits with
# status 75; this script then requeues the job, and --resume auto resumes the run, with the same results.
# Change partition, account, time and environment to those of your cluster.
#SBATCH --job-name=pcm3
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --array=1-3
#SBATCH --output=slurm_%A_%a.txt
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{/^#S/d;/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;; esac
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" || exit 2
venv=${PCM3_VENV:-.venv}
[ ! -f "$venv/bin/activate" ] || source "$venv/bin/activate"
trap : USR1 TERM # if the cluster signals this shell, too, it still waits for the program

SEEDS=${SLURM_ARRAY_TASK_ID:-1} srun bash script_pretrain_moco.sh "$@"
status=$?
if [ "$status" = 75 ]; then
    echo "stopped before the time limit; requeued"
    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    exit
fi
exit "$status"
