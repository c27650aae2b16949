"""The command of `llava/train/embedded/training.py`; --help says what it takes."""

from llava.train.embedded.training import main

if __name__ == "__main__":
    raise SystemExit(main())
