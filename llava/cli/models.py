"""Commands that make and change models: merge, convert, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llava.cli.options import Config, DetectorBase, Dtype


def merge(
    base: Annotated[str, typer.Option(help="Base model the adapter was trained on.")],
    adapter: Annotated[str, typer.Option(help="PEFT adapter: detector or detoxifier.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    tolerance: Annotated[float, typer.Option(help="Largest logit difference that passes.")] = 1e-3,
    dtype: Dtype = "float32",
    config: Config = None,
) -> None:
    """Merge an adapter into its base, and check that the result gives the same logits."""
    from llava.protector.merge import merge_adapter

    typer.echo(merge_adapter(base, adapter, output, tolerance=tolerance, dtype=dtype))


def export(
    detector: Annotated[str, typer.Option(help="Detector: a folder or hub id; one with --pooling last.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    detector_base: DetectorBase = None,
    tolerance: Annotated[float, typer.Option(help="Largest score difference that passes.")] = 1e-3,
    dtype: Dtype = "float32",
    config: Config = None,
) -> None:
    """Write a detector in the form that vLLM's classify serves, and check that the scores are the same."""
    from llava.protector.guards.export import export_detector

    typer.echo(export_detector(detector, output, base=detector_base, tolerance=tolerance, dtype=dtype))


def convert(
    source: Annotated[str, typer.Argument(help="LLaVA checkpoint: folder or hub id.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    to: Annotated[str, typer.Option(help="hf (from the original format) or original (from HF-native).")] = "hf",
    base: Annotated[str | None, typer.Option(help="Language model of a LoRA or projector-only checkpoint.")] = None,
    vision_tower: Annotated[str | None, typer.Option(help="CLIP tower, when the one named cannot be reached.")] = None,
    prompt_version: Annotated[str | None, typer.Option(help="v0, v1 or llama_2 [the checkpoint's own].")] = None,
) -> None:
    """Convert a LLaVA checkpoint, original to HF-native or back, and prove that its logits are the same."""
    from llava.model.llava_checkpoints.convert import convert_checkpoint

    difference = convert_checkpoint(
        source, output, to=to, base=base, vision_tower=vision_tower, prompt_version=prompt_version
    )
    typer.echo(f"{output}: largest logit difference {difference:.2e}")


def train_detector(context: typer.Context) -> None:
    """Train a harm detector; takes the flags of python -m llava.train.harm_detector."""
    from llava.train.harm_detector import main as train

    raise typer.Exit(train(context.args))


def train_detoxifier(context: typer.Context) -> None:
    """Train a detoxifier; takes the flags of python -m llava.train.detoxifier."""
    from llava.train.detoxifier import main as train

    raise typer.Exit(train(context.args))


def train_llava(context: typer.Context) -> None:
    """Train a LLaVA (--stage pretrain or finetune); takes the flags of python -m llava.train.llava."""
    from llava.train.llava import main as train

    raise typer.Exit(train(context.args))
