#!/usr/bin/env bash
# For whoever has a card: everything that this project claims of one, tried and measured in at most five minutes.
#
#   bash benchmarks/gpu_check.sh                         # the environment of script_test.sh, made where it is missing
#   PCM3_VENV=my_venv bash benchmarks/gpu_check.sh       # in an environment with a CUDA build of torch
#
# Arguments go to benchmarks/gpu_check.py (--help explains them). It ends with one table and one JSON file; please send both.
set -euo pipefail
cd "$(dirname "$0")/.."
source ./script_environment.sh
make_environment requirements-dev.txt
python benchmarks/gpu_check.py "$@"
