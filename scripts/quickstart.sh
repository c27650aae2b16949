#!/usr/bin/env bash
# Install what is needed and run the embedded model on the sample benchmark, without and with the protector.
# Usage: bash scripts/quickstart.sh [--output DIR] [further options of `mllm-protector quickstart`]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/scripts/environment.sh"
prepare_environment "$here" ""
exec python -m llava.cli quickstart "$@"
