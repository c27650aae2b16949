"""Merge a LoRA adapter into its base and check the result; see `llava/protector/merge.py`.

python scripts/merge_peft_adapter.py --base_model_name BASE --adapter_model_name ADAPTER --output_name FOLDER
"""

from __future__ import annotations

import argparse

from llava.process import report_errors
from llava.protector.merge import merge_adapter


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for a failed check, 2 for bad input."""
    parser = argparse.ArgumentParser(description="Merge a LoRA adapter into its base and check the result.")
    parser.add_argument("--base_model_name", "--base-model-name", required=True, help="embedded, folder or hub id")
    parser.add_argument("--adapter_model_name", "--adapter-model-name", required=True, help="folder or hub id")
    parser.add_argument("--output_name", "--output-name", required=True, help="folder to make")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest logit difference that passes")
    args = parser.parse_args(argv)
    return report_errors(
        lambda: print(
            merge_adapter(
                args.base_model_name,
                args.adapter_model_name,
                args.output_name,
                tolerance=args.tolerance,
                dtype=args.dtype,
            )
        )
    )
