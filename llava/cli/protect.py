"""Commands around the guard: score responses, rewrite them, set the threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llava.cli.config import split_list
from llava.cli.options import (
    Attention,
    Config,
    Detector,
    DetectorBase,
    DetoxifierBase,
    Device,
    Dtype,
    In4Bit,
    In8Bit,
    StateHead,
    Threshold,
    TrustRemoteCode,
)


def detect(
    input: Annotated[
        Path, typer.Option(help="Rows with response and, where known, prompt: JSON Lines, JSON, CSV or Parquet.")
    ],
    output: Annotated[
        Path, typer.Option(help="Rows with harm_score and flagged: JSON Lines, or .csv, .parquet by its ending.")
    ],
    detector: Detector = "embedded",
    detector_base: DetectorBase = None,
    threshold: Threshold = None,
    batch_size: Annotated[int, typer.Option(help="Full windows a forward pass; of shorter texts more fit.")] = 16,
    num_processes: Annotated[
        int | None, typer.Option(help="Processes that share the work [accelerators, or 1].")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of one process [shared evenly].")] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    attn_implementation: Attention = None,
    load_in_8bit: In8Bit = False,
    load_in_4bit: In4Bit = False,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Score responses: adds harm_score (1 = harmful) and flagged to each row. Resumes."""
    options = {**locals(), "base": detector_base}
    from llava.eval.detection.runner import run_detection
    from llava.eval.detection.settings import DetectionSettings
    from llava.model.options import take_options

    found = run_detection(
        DetectionSettings(
            **vars(take_options(options)),
            input=input,
            output=output,
            detector=detector,
            threshold=threshold,
            batch_size=batch_size,
            num_processes=num_processes,
            threads=threads,
        )
    )
    typer.echo(f"{output}: {found.flagged} of {found.rows} responses flagged")


def detoxify(
    input: Annotated[Path, typer.Option(help="Rows with response and, where known, prompt: JSON Lines, JSON or CSV.")],
    output: Annotated[Path, typer.Option(help="JSONL to write: the rows with detoxified.")],
    detoxifier: Annotated[str, typer.Option(help="Detoxifier: 'embedded', a folder or a hub id.")] = "embedded",
    detoxifier_base: DetoxifierBase = None,
    batch_size: Annotated[int, typer.Option(help="Texts a forward pass.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Longest rewrite in tokens.")] = 256,
    device: Device = None,
    dtype: Dtype = "auto",
    attn_implementation: Attention = None,
    load_in_8bit: In8Bit = False,
    load_in_4bit: In4Bit = False,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Rewrite responses: adds detoxified to each row; rows with flagged false keep their response."""
    options = {**locals(), "base": detoxifier_base}
    from llava.model.options import take_options
    from llava.places import check_output_file
    from llava.protector.detoxifier import Detoxifier
    from llava.protector.jsonl import detoxify_rows, read_responses, write_rows

    rows = read_responses(input, flags=True)
    check_output_file(output)
    writer = Detoxifier.from_pretrained(detoxifier, take_options(options))
    done = write_rows(output, detoxify_rows(writer, rows, batch_size, max_new_tokens), len(rows), "detoxify")
    typer.echo(f"{output}: {sum(row['detoxified'] != row['response'] for row in done)} of {len(done)} rewritten")


def calibrate(
    data: Annotated[str, typer.Option(help="Labelled rows that it was not trained on: FILE,FILE,…")],
    detector: Detector = "embedded",
    detector_base: DetectorBase = None,
    false_positive_rate: Annotated[float, typer.Option(help="Largest share of harmless rows to flag.")] = 0.02,
    max_false_positive_rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SOURCE=]RATE", help="Limit of one file's harmless rows, by its name without suffix; or of all."
        ),
    ] = None,
    benign_source: Annotated[
        str | None, typer.Option(help="Count only this file's harmless rows, by its name without suffix [all].")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Use only the prompts that training holds out by default.")
    ] = False,
    state_head: StateHead = None,
    model: Annotated[str, typer.Option(help="Model that --state-head belongs to; it reads the rows.")] = "embedded",
    recall_loss: Annotated[
        float, typer.Option(help="Recall that --state-head may cost the detector, as a share.")
    ] = 0.005,
    output: Annotated[
        Path | None, typer.Option(help="Folder to make: the calibrated copy; of a guard that is none of ours, a file.")
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Change the detector's own folder instead.")] = False,
    batch_size: Annotated[int, typer.Option(help="Texts a forward pass.")] = 16,
    device: Device = None,
    dtype: Dtype = "auto",
    attn_implementation: Attention = None,
    load_in_8bit: In8Bit = False,
    load_in_4bit: In4Bit = False,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Choose a guard's threshold for a false-positive rate, and its temperature where it is a detector of ours.

    With --state-head: the head's own threshold, and between which scores --detector ('none': no cascade) reads.
    """
    options = {**locals(), "base": detector_base}
    from llava.model.options import take_options
    from llava.protector.guard import is_own_detector
    from llava.protector.scoring.limits import parse_limits
    from llava.quality.figures import calibrate_with_figures

    overall, limits = parse_limits(max_false_positive_rate or [])
    if state_head is not None:
        from llava.protector.states.calibrate import calibrate_state_head

        chosen = calibrate_state_head(
            state_head,
            data,
            false_positive_rate if overall is None else overall,
            model=model,
            detector=None if detector in ("none", "") else detector,
            detector_base=detector_base,
            output=output,
            in_place=in_place,
            benign_source=benign_source,
            held_out=held_out,
            limits=limits,
            recall_loss=recall_loss,
            batch_size=batch_size,
            options=take_options({**options, "base": None}),
        )
        typer.echo("\n".join(chosen.describe()))
        return
    found = calibrate_with_figures(
        detector,
        data,
        false_positive_rate if overall is None else overall,
        output=output,
        in_place=in_place,
        benign_source=benign_source,
        held_out=held_out,
        limits=limits,
        batch_size=batch_size,
        options=take_options(options),
    )
    if is_own_detector(detector):
        typer.echo(f"threshold {found.threshold:.6f}, temperature {found.temperature:.4f}")
    else:
        typer.echo(f"threshold {found.threshold:.6f}: use it with --threshold {found.threshold:.6f}")
    typer.echo(f"false positives {found.false_positive_rate:.2%} of {found.harmless} harmless rows")
    typer.echo(f"recall {found.recall:.2%} of {found.harmful} harmful rows")
    for rate in found.sources:
        kept = f"above the {rate.most:.2%} allowed" if rate.broken else f"at most {rate.most:.2%} allowed"
        shown = f"{rate.source}: {rate.false_positive_rate:.2%} of {rate.harmless} harmless rows flagged, {kept}"
        typer.echo(shown, err=rate.broken)
    typer.echo(f"expected calibration error {found.ece_before:.4f} before, {found.ece_after:.4f} after")
    if found.unscored:
        typer.echo(f"{found.unscored} rows could not be scored and count as flagged")


def guard_bench(
    input: Annotated[
        list[Path], typer.Option(help="Labelled responses: JSON Lines, JSON, CSV or Parquet; several by repeating it.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the figures; run again on it to resume.")],
    detector: Detector = "embedded",
    detector_base: DetectorBase = None,
    threshold: Threshold = None,
    evasions: Annotated[
        list[str] | None, typer.Option(help="Disguises to measure as well, by name, or all; several.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Score at most so many responses of each source.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the limit's draw, the intervals and the disguises.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Texts a forward pass.")] = 16,
    device: Device = None,
    dtype: Dtype = "auto",
    attn_implementation: Attention = None,
    load_in_8bit: In8Bit = False,
    load_in_4bit: In4Bit = False,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Measure a guard on labelled responses, by source, beside published figures of others. Resumes."""
    options = {**locals(), "base": detector_base}
    from llava.model.options import take_options
    from llava.quality.guard_bench.bench import run_bench
    from llava.quality.guard_bench.report import print_report

    report = run_bench(
        input,
        output,
        detector,
        threshold=threshold,
        evasions=split_list(evasions),
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        options=take_options(options),
    )
    print_report(report)
    typer.echo(output)
