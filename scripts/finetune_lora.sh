#!/usr/bin/env bash
# LLaVA stage 2 with LoRA: bash scripts/finetune_lora.sh --base LLAVA --train-data FILE.json --output-dir FOLDER [flags]
# Several processes: LAUNCHER=deepspeed NUM_PROCESSES=8 bash scripts/finetune_lora.sh --deepspeed scripts/zero2.json …
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$here/scripts/launch.sh" llava.train.llava --config "$here/llava/train/configs/llava_finetune_lora.yaml" "$@"
