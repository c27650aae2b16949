"""The command of `llava/cli/merge_lora_weights.py`; --help says what it takes."""

from llava.cli.merge_lora_weights import main

if __name__ == "__main__":
    raise SystemExit(main())
