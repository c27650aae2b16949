#!/usr/bin/env bash
# Generate, judge and report: eval_multi_safeguard.sh MODEL RESULT_DIR NUM_GPU TEMPERATURE DETECTOR DETOXIFIER [OPTION ...]
# Further options go to `generate`; the benchmark is $BENCHMARK or mm_safetybench, the judge $JUDGE or keyword; `none` as
# DETECTOR or DETOXIFIER leaves it out; $PYTHON runs it.
set -euo pipefail
if [[ $# -lt 6 ]]; then
  echo "error: six arguments are needed: MODEL RESULT_DIR NUM_GPU TEMPERATURE DETECTOR DETOXIFIER [OPTION ...]" >&2; exit 2
fi
python="${PYTHON:-$(command -v python || command -v python3 || echo python3)}"
export PYTHONPATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
"$python" -m llava.installation >/dev/null
"$python" -m llava.cli generate --model "$1" --output "$2" --num-processes "$3" --temperature "$4" --detector "$5" \
  --detoxifier "$6" --benchmark "${BENCHMARK:-mm_safetybench}" "${@:7}"
"$python" -m llava.cli score "$2" --judge "${JUDGE:-keyword}"
"$python" -m llava.cli report "$2"
