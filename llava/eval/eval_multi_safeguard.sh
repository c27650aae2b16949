#!/usr/bin/env bash
# Generate, judge and report: eval_multi_safeguard.sh MODEL RESULT_DIR NUM_GPU TEMPERATURE DETECTOR DETOXIFIER [OPTION ...]
# Further options go to `generate`; the benchmark is $BENCHMARK or mm_safetybench, the judge $JUDGE or keyword.
set -euo pipefail
usage="usage: $0 MODEL RESULT_DIR NUM_GPU TEMPERATURE DETECTOR DETOXIFIER [OPTION ...]"
python="${PYTHON:-python}"
"$python" -m llava.cli generate --model "${1:?$usage}" --output "${2:?$usage}" --num-processes "${3:?$usage}" \
  --temperature "${4:?$usage}" --detector "${5:?$usage}" --detoxifier "${6:?$usage}" \
  --benchmark "${BENCHMARK:-mm_safetybench}" "${@:7}"
"$python" -m llava.cli score "$2" --judge "${JUDGE:-keyword}"
"$python" -m llava.cli report "$2"
