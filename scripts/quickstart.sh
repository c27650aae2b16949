#!/usr/bin/env bash
# Install what is needed and run the embedded model on the shipped samples, without and with the protector.
# Usage: bash scripts/quickstart.sh [--output DIR] [further options of `mllm-protector quickstart`]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/scripts/environment.sh"
# With the server, for one of the commands that the quickstart ends with.
prepare_environment "$here" "[serve]"
exec python -m llava.cli quickstart "$@"
