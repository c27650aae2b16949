"""The command of `llava/cli/merge_peft_adapter.py`; --help says what it takes."""

from llava.cli.merge_peft_adapter import main

if __name__ == "__main__":
    raise SystemExit(main())
