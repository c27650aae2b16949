#!/usr/bin/env bash
# Train a harm detector: bash scripts/train_harm_detector.sh --train-data FILE --output-dir FOLDER [flags]
# Several processes: LAUNCHER=deepspeed NUM_PROCESSES=8 bash scripts/train_harm_detector.sh --deepspeed scripts/zero2.json …
set -euo pipefail
exec bash "$(dirname "$0")/launch.sh" llava.train.harm_detector "$@"
