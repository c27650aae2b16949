"""The command of `llava/data/sample_making/benchmark.py`; --help says what it takes."""

from llava.data.sample_making.benchmark import main

if __name__ == "__main__":
    raise SystemExit(main())
