#!/usr/bin/env bash
# Install what is needed and run the tests with coverage. Usage: bash scripts/test.sh [pytest options]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/scripts/environment.sh"
prepare_environment "$here" "[dev,train,eval,topic]"
cd "$here"
exec python -m pytest --cov --cov-report=term "$@"
