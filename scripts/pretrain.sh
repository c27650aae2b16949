#!/usr/bin/env bash
# LLaVA stage 1, the projector alone: bash scripts/pretrain.sh --base LANGUAGE_MODEL --vision-tower CLIP --train-data FILE.json --output-dir FOLDER [flags]
# Several processes: LAUNCHER=deepspeed NUM_PROCESSES=8 bash scripts/pretrain.sh --deepspeed scripts/zero2.json …
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$here/scripts/launch.sh" llava.train.llava --config "$here/llava/train/configs/llava_pretrain.yaml" "$@"
