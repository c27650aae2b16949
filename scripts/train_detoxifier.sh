#!/usr/bin/env bash
# Train a detoxifier: bash scripts/train_detoxifier.sh --train-data FILE --output-dir FOLDER [flags]
# Without arguments: the paper's recipe (--paper), with DeepSpeed where it and a GPU are there.
# Several processes: LAUNCHER=deepspeed NUM_PROCESSES=8 bash scripts/train_detoxifier.sh --deepspeed scripts/zero2.json …
set -euo pipefail
[[ $# -gt 0 ]] || set -- --paper
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" llava.train.detoxifier "$@"
