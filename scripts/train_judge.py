"""The command of `llava/train/judge/command.py`; --help says what it takes."""

from llava.train.judge.command import main

if __name__ == "__main__":
    raise SystemExit(main())
