"""The command of `llava/train/vision/evaluate_reading.py`; --help says what it takes."""

from llava.train.vision.evaluate_reading import main

if __name__ == "__main__":
    raise SystemExit(main())
