"""The command of `llava/quality/commands/compare_baselines.py`; --help says what it takes."""

from llava.quality.commands.compare_baselines import main

if __name__ == "__main__":
    raise SystemExit(main())
