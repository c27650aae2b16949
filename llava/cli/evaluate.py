"""Commands that measure: ask a model, judge its answers, report, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llava.cli.config import parse_batch_size, parse_prices, split_list, split_specs
from llava.cli.options import (
    Attention,
    Config,
    DetectorBase,
    DetoxifierBase,
    Device,
    Dtype,
    Endpoint,
    In4Bit,
    In8Bit,
    OptionalDetector,
    OptionalDetoxifier,
    RequestTimeout,
    RunFolder,
    ShareBackbone,
    StateHead,
    Threshold,
    TrustRemoteCode,
)


def generate(
    model: Annotated[str, typer.Option(help="Multimodal model: 'embedded', a folder or a hub id.")],
    output: Annotated[Path, typer.Option(help="Folder of the run; run again on it to resume.")],
    benchmark: Annotated[
        str, typer.Option(help="mm_safetybench, figstep, sample, another known name, or a question file.")
    ] = "mm_safetybench",
    data_root: Annotated[Path | None, typer.Option(help="Folder of the benchmark's files.")] = None,
    detector: OptionalDetector = None,
    detoxifier: OptionalDetoxifier = None,
    detector_base: DetectorBase = None,
    detoxifier_base: DetoxifierBase = None,
    share_backbone: ShareBackbone = None,
    threshold: Threshold = None,
    state_head: StateHead = None,
    trim: Annotated[
        bool | None,
        typer.Option(
            "--trim/--no-trim", help="Cut harmful sentences out before a rewrite [as the run began, else trim]."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Ask at most so many questions.")] = None,
    image_types: Annotated[list[str] | None, typer.Option(help="TEXT, SD, TYPO, SD_TYPO or IMAGE; several.")] = None,
    scenarios: Annotated[list[str] | None, typer.Option(help="Scenarios by name or number; several.")] = None,
    reference_typo_prompt: Annotated[
        bool, typer.Option(help="Ask TYPO images with the SD text, as the reference project does.")
    ] = False,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest response in tokens.")] = 256,
    num_processes: Annotated[
        int | None, typer.Option(help="Processes that share the work [accelerators, or 1].")
    ] = None,
    batch_size: Annotated[str, typer.Option(help="Questions a forward pass, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads of one process [shared evenly].")] = None,
    endpoint: Endpoint = None,
    concurrency: Annotated[int, typer.Option(help="Requests under way at a time with --endpoint.")] = 8,
    request_timeout: RequestTimeout = 600.0,
    device: Device = None,
    dtype: Dtype = "auto",
    attn_implementation: Attention = None,
    load_in_8bit: In8Bit = False,
    load_in_4bit: In4Bit = False,
    trust_remote_code: TrustRemoteCode = False,
    base: Annotated[
        str | None,
        typer.Option(help="Base of a model that is an adapter or a part of a LLaVA [the one that it names]."),
    ] = None,
    vision_tower: Annotated[
        str | None, typer.Option(help="CLIP tower of an original LLaVA, when the one named cannot be reached.")
    ] = None,
    config: Config = None,
) -> None:
    """Ask a model a benchmark's questions, guard the answers, write records.jsonl. Resumes."""
    options = {name: value for name, value in locals().items() if name != "config"}
    from llava.eval.run.runner import run_generation
    from llava.eval.run.settings import GenerationSettings

    for part in ("detector", "detoxifier", "state_head"):
        options[part] = None if options[part] in ("none", "") else options[part]
    options["image_types"], options["scenarios"] = split_list(image_types), split_list(scenarios, at_blanks=False)
    options["batch_size"] = parse_batch_size(batch_size)
    typer.echo(run_generation(GenerationSettings(**options)))


def score(
    folder: RunFolder,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="keyword, embedded, detector[:SPEC], guard:[FORM@]PATH, chat:MODEL[@URL]; several."),
    ] = None,
    estimate: Annotated[bool, typer.Option(help="Only say what chat judges would be asked.")] = False,
    prices: Annotated[
        str | None, typer.Option(help="IN,OUT for a million tokens, e.g. 2.50,10; adds the cost to what will be asked.")
    ] = None,
    request_timeout: RequestTimeout = 600.0,
    device: Device = None,
    dtype: Dtype = "auto",
    attn_implementation: Attention = None,
    load_in_8bit: In8Bit = False,
    load_in_4bit: In4Bit = False,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Judge a run's responses and write summary.json and each scenario's merged.json."""
    options = dict(locals())
    from llava.eval.report.rendering import print_summary
    from llava.eval.scoring.scoring import estimate_judging, score_run
    from llava.model.options import take_options

    judges, paid = split_specs(judge), parse_prices(prices)
    if estimate:
        for line in estimate_judging(folder, judges):
            typer.echo(line.describe(paid))
        return
    run = score_run(folder, judges, take_options(options), prices=paid, request_timeout=request_timeout)
    print_summary(run)


def report(folder: RunFolder, config: Config = None) -> None:
    """Write report.html, report.md and table.tex of a scored run."""
    from llava.eval.report.rendering import render_report

    typer.echo(render_report(folder))


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Scored runs; the first one is the reference.")],
    output: Annotated[Path | None, typer.Option(help="Markdown file to write as well.")] = None,
) -> None:
    """Put scored runs side by side, each tested against the first."""
    from llava.eval.report.comparison import compare_runs, print_comparison, render_comparison
    from llava.files import write_text_atomic
    from llava.places import check_output_file

    if output is not None:
        check_output_file(output)
    rows = compare_runs(folders)
    if output is not None:
        write_text_atomic(output, render_comparison(rows))
    print_comparison(rows)
