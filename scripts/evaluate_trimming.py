"""The command of `llava/quality/commands/evaluate_trimming.py`; --help says what it takes."""

from llava.quality.commands.evaluate_trimming import main

if __name__ == "__main__":
    raise SystemExit(main())
