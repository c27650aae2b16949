"""The command of `llava/train/embedded/data.py`; --help says what it takes."""

from llava.train.embedded.data import main

if __name__ == "__main__":
    raise SystemExit(main())
