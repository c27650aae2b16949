"""Merge a LLaVA adapter into its base and check the result; see `llava/model/llava_checkpoints/merge.py`.

python scripts/merge_lora_weights.py --model-path ADAPTER --model-base BASE --save-model-path FOLDER
"""

from __future__ import annotations

import argparse

from llava.model.llava_checkpoints.merge import merge_llava
from llava.process import report_errors


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for a failed check, 2 for bad input."""
    parser = argparse.ArgumentParser(description="Merge a LLaVA adapter into its base and check the result.")
    parser.add_argument("--model-path", required=True, help="the adapter: folder or hub id")
    parser.add_argument("--model-base", help="what it was trained on [what the adapter records]")
    parser.add_argument("--save-model-path", required=True, help="folder to make")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest logit difference that passes")
    args = parser.parse_args(argv)
    return report_errors(
        lambda: print(
            merge_llava(
                args.model_path, args.model_base, args.save_model_path, tolerance=args.tolerance, dtype=args.dtype
            )
        )
    )
