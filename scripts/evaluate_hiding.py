"""The command of `llava/quality/commands/evaluate_hiding.py`; --help says what it takes."""

from llava.quality.commands.evaluate_hiding import main

if __name__ == "__main__":
    raise SystemExit(main())
