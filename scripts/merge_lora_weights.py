"""Merge a LLaVA adapter into its base and check the result; see `llava/model/llava_checkpoints/merge.py`.

python scripts/merge_lora_weights.py --model-path ADAPTER --model-base BASE --save-model-path FOLDER
"""

from __future__ import annotations

import argparse
import sys

from llava.errors import FailedRunError, InputError
from llava.model.llava_checkpoints.merge import merge_llava


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for a failed check, 2 for bad input."""
    parser = argparse.ArgumentParser(description="Merge a LLaVA adapter into its base and check the result.")
    parser.add_argument("--model-path", required=True, help="the adapter: folder or hub id")
    parser.add_argument("--model-base", help="what it was trained on [what the adapter records]")
    parser.add_argument("--save-model-path", required=True, help="folder to make")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest logit difference that passes")
    args = parser.parse_args(argv)
    try:
        line = merge_llava(
            args.model_path, args.model_base, args.save_model_path, tolerance=args.tolerance, dtype=args.dtype
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FailedRunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
