"""Whether this interpreter has what the package needs: `python -m llava.installation`, asked by the shells first.

It imports the standard library alone, so that it can answer where nothing is installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from shlex import quote

NEEDED = ("typer", "torch", "transformers", "peft")
"""Packages without which no command runs; `mllm-protector doctor` looks at all of them."""
SERVER_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
"""What the extra `serve` brings, by the names that are imported."""


def main() -> int:
    """Print one line on stderr when something is missing; return the exit code, 0 or 2."""
    line = describe_missing([name for name in NEEDED if find_spec(name) is None])
    if line is None:
        return 0
    print(f"error: {line}", file=sys.stderr)
    return 2


def describe_missing(missing: list[str]) -> str | None:
    """Return what makes an environment with the packages in it; None when none is missing."""
    if not missing:
        return None
    root = Path(__file__).resolve().parents[1]
    known = root / ".venv" / "bin" / "activate"
    if not (root / "pyproject.toml").is_file():
        remedy = "pip install mllm-protector"
    elif known.is_file():
        remedy = f"source {quote(str(known))}"
    else:
        remedy = f"cd {quote(str(root))} && python3 -m venv .venv && source .venv/bin/activate && pip install -e ."
    return f"{sys.executable} has no {', '.join(missing)}; make an environment, or go into yours: {remedy}"


if __name__ == "__main__":
    raise SystemExit(main())
