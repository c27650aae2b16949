"""Commands around the guard: score responses, rewrite them, set the threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llava.cli.options import Config, Detector, Device, Dtype, Threshold


def detect(
    input: Annotated[Path, typer.Option(help="JSONL rows with response and, where known, prompt.")],
    output: Annotated[Path, typer.Option(help="JSONL to write: the rows with harm_score and flagged.")],
    detector: Detector = "embedded",
    threshold: Threshold = None,
    batch_size: Annotated[int, typer.Option(help="Texts a forward pass.")] = 16,
    device: Device = None,
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Score responses: adds harm_score (1 = harmful) and flagged to each row."""
    from llava.places import check_output_file
    from llava.protector.detector import HarmDetector
    from llava.protector.jsonl import detect_rows, read_responses, write_rows

    rows = read_responses(input)
    check_output_file(output)
    scorer = HarmDetector.from_pretrained(detector, device=device, dtype=dtype)
    done = write_rows(output, detect_rows(scorer, rows, threshold, batch_size), len(rows), "detect")
    typer.echo(f"{output}: {sum(row['flagged'] for row in done)} of {len(done)} responses flagged")


def detoxify(
    input: Annotated[Path, typer.Option(help="JSONL rows with response and, where known, prompt.")],
    output: Annotated[Path, typer.Option(help="JSONL to write: the rows with detoxified.")],
    detoxifier: Annotated[str, typer.Option(help="Detoxifier: 'embedded', a folder or a hub id.")] = "embedded",
    batch_size: Annotated[int, typer.Option(help="Texts a forward pass.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Longest rewrite in tokens.")] = 256,
    device: Device = None,
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Rewrite responses: adds detoxified to each row; rows with flagged false keep their response."""
    from llava.places import check_output_file
    from llava.protector.detoxifier import Detoxifier
    from llava.protector.jsonl import detoxify_rows, read_responses, write_rows

    rows = read_responses(input)
    check_output_file(output)
    writer = Detoxifier.from_pretrained(detoxifier, device=device, dtype=dtype)
    done = write_rows(output, detoxify_rows(writer, rows, batch_size, max_new_tokens), len(rows), "detoxify")
    typer.echo(f"{output}: {sum(row['detoxified'] != row['response'] for row in done)} of {len(done)} rewritten")


def calibrate(
    data: Annotated[str, typer.Option(help="Labelled rows that it was not trained on: FILE,FILE,…")],
    detector: Detector = "embedded",
    false_positive_rate: Annotated[float, typer.Option(help="Largest share of harmless rows to flag.")] = 0.02,
    benign_source: Annotated[
        str | None, typer.Option(help="Count only this file's harmless rows, by its name without suffix [all].")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Use only the prompts that training holds out by default.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Folder to make: the calibrated copy.")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Change the detector's own folder instead.")] = False,
    batch_size: Annotated[int, typer.Option(help="Texts a forward pass.")] = 16,
    device: Device = None,
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Choose a detector's threshold for a false-positive rate, and its temperature, on labelled rows."""
    options = {name: value for name, value in locals().items() if name != "config"}
    from llava.quality.figures import calibrate_with_figures

    found = calibrate_with_figures(**options)
    typer.echo(f"threshold {found.threshold:.6f}, temperature {found.temperature:.4f}")
    typer.echo(f"false positives {found.false_positive_rate:.2%} of {found.harmless} harmless rows")
    typer.echo(f"recall {found.recall:.2%} of {found.harmful} harmful rows")
    typer.echo(f"expected calibration error {found.ece_before:.4f} before, {found.ece_after:.4f} after")
    if found.unscored:
        typer.echo(f"{found.unscored} rows could not be scored and count as flagged")
