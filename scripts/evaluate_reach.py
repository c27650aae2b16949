"""The command of `llava/quality/commands/evaluate_reach.py`; --help says what it takes."""

from llava.quality.commands.evaluate_reach import main

if __name__ == "__main__":
    raise SystemExit(main())
