#!/usr/bin/env bash
# Train a detoxifier: bash scripts/train_detoxifier.sh --train-data FILE --output-dir FOLDER [flags]
# Several processes: LAUNCHER=deepspeed NUM_PROCESSES=8 bash scripts/train_detoxifier.sh --deepspeed scripts/zero2.json …
set -euo pipefail
exec bash "$(dirname "$0")/launch.sh" llava.train.detoxifier "$@"
