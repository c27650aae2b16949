"""The command of `llava/quality/commands/judge_agreement.py`; --help says what it takes."""

from llava.quality.commands.judge_agreement import main

if __name__ == "__main__":
    raise SystemExit(main())
