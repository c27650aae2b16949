"""The command of `llava/quality/commands/evaluate_state_head.py`; --help says what it takes."""

from llava.quality.commands.evaluate_state_head import main

if __name__ == "__main__":
    raise SystemExit(main())
