# Sourced by quickstart.sh and test.sh: a virtual environment with this project in it.

# prepare_environment ROOT EXTRAS: use the active environment or ROOT/.venv, and install ROOT with EXTRAS ("[dev]")
# unless exactly that is in place already.
prepare_environment() {
  local root="$1" extras="$2"
  if [[ -z "${VIRTUAL_ENV:-}" && -z "${CONDA_PREFIX:-}" ]]; then
    if [[ ! -x "$root/.venv/bin/python" ]]; then
      "$(find_python)" -m venv "$root/.venv"
    fi
    # shellcheck disable=SC1091
    source "$root/.venv/bin/activate"
  fi
  local stamp wanted
  stamp="$(python -c 'import sys; print(sys.prefix)')/.mllm-protector${extras//[^a-z]/-}"
  wanted="$root $(cksum <"$root/pyproject.toml")"
  if [[ ! -f "$stamp" || "$(cat "$stamp")" != "$wanted" ]]; then
    echo "installing mllm-protector$extras into $(python -c 'import sys; print(sys.prefix)') ..." >&2
    python -m pip install --quiet --disable-pip-version-check -e "$root$extras"
    echo "$wanted" >"$stamp"
  fi
}

# add_optional: install what quantised models and lmms-eval's tasks need; without it their tests are skipped. lmms-eval comes
# without what it asks for beyond that (torchvision, video readers); it reaches into filelock, which 4 rearranged.
add_optional() {
  local pip="python -m pip install --quiet --disable-pip-version-check"
  python -c 'import bitsandbytes' 2>/dev/null || $pip bitsandbytes || echo "bitsandbytes cannot be installed" >&2
  python -c 'import lmms_eval, aiohttp, filelock._api' 2>/dev/null || {
    $pip --no-deps 'lmms-eval<0.8' 'filelock<4' loguru pytz tenacity sacrebleu portalocker tabulate colorama lxml evaluate \
      pytablewriter DataProperty mbstrdecoder pathvalidate tabledata tcolorpy typepy chardet && $pip aiohttp
  } || echo "lmms-eval cannot be installed" >&2
}

# add_browser: install the browser in which pages are tested; elsewhere than on a Debian machine as root their tests are skipped.
add_browser() {
  if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [[ "$(id -u)" == 0 ]]; then
    apt-get -qq update && apt-get -qq install -y chromium chromium-driver >/dev/null
  fi
}

# find_python: print the first Python from 3.10 to 3.13 with venv.
find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.10 to 3.13 with venv found; install python3 and python3-venv" >&2
  return 2
}
