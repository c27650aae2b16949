#!/usr/bin/env bash
# Install what is needed and run the tests, in two processes side by side (TEST_PROCESSES changes the number).
#   bash scripts/test.sh                  the fast tests: no test marked slow, no coverage; under ten minutes on two cores
#   bash scripts/test.sh --all            every test, with coverage, and more inputs a parser
#   bash scripts/test.sh --fuzz           tests/fuzz with 10,000 inputs a parser (MLLM_PROTECTOR_FUZZ_EXAMPLES changes it);
#                                         well under an hour on two cores
# What follows goes to pytest: bash scripts/test.sh tests/data, bash scripts/test.sh -m slow, bash scripts/test.sh --all -k torchrun
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/scripts/environment.sh"
# Tests start hundreds of processes; none has to compile the package again.
unset PYTHONDONTWRITEBYTECODE
prepare_environment "$here" "[dev,train,eval,topic]"
cd "$here"
# A fuzz test takes minutes, and more where the machine is busy: each input has a limit of its own, and the test a wide one.
# A process that is done takes tests over from the other, so that none is left alone with the longest ones.
case "${1:-}" in
  --all)  shift; inputs=200; set -- --cov --cov-report=term "$@" ;;
  --fuzz) shift; inputs=10000; set -- --timeout 7200 --dist worksteal tests/fuzz "$@" ;;
  *)      inputs=50; set -- -m "not slow" "$@" ;;
esac
export MLLM_PROTECTOR_FUZZ_EXAMPLES="${MLLM_PROTECTOR_FUZZ_EXAMPLES:-$inputs}"
exec python -m pytest --numprocesses "${TEST_PROCESSES:-2}" --dist loadgroup "$@"
