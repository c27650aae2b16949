"""The command of `llava/train/states/embedded.py`; --help says what it takes."""

from llava.train.states.embedded import main

if __name__ == "__main__":
    raise SystemExit(main())
