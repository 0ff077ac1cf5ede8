#!/usr/bin/env bash
# Creates the environment (.venv, once) and runs the linter and the tests. Arguments are passed to pytest:
#
#   bash script_test.sh -m slow
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;; esac
set -euo pipefail
cd "$(dirname "$0")"
source ./script_environment.sh
make_environment requirements-dev.txt
ruff check .
ruff format --check .
if [ $# -gt 0 ]; then python -m pytest "$@"; else python -m pytest; fi
echo "tests passed"
