#!/usr/bin/env bash
# Run a module in one or several processes: bash scripts/launch.sh MODULE [flags]
# LAUNCHER: python (one process, the default), torchrun, accelerate or deepspeed; NUM_PROCESSES: processes on this machine;
# MASTER_PORT: where they meet, for a second run beside another (accelerate, deepspeed; torchrun looks for a free one).
set -euo pipefail
python="$(command -v python || command -v python3 || echo python3)"
export PYTHONPATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
"$python" -m llava.installation >/dev/null
case "${LAUNCHER:-python}" in
  python)     exec "$python" -m "$@" ;;
  torchrun)   exec torchrun --standalone --nproc_per_node "${NUM_PROCESSES:-auto}" -m "$@" ;;
  accelerate) exec accelerate launch ${NUM_PROCESSES:+--num_processes "$NUM_PROCESSES"} ${MASTER_PORT:+--main_process_port "$MASTER_PORT"} -m "$@" ;;
  deepspeed)  exec deepspeed ${NUM_PROCESSES:+--num_gpus "$NUM_PROCESSES"} ${MASTER_PORT:+--master_port "$MASTER_PORT"} --module "$@" ;;
  *)          echo "error: LAUNCHER is $LAUNCHER; choose python, torchrun, accelerate or deepspeed" >&2; exit 2 ;;
esac
