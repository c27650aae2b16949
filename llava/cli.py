"""The command `mllm-protector`: one Typer app over the package; each command imports what it needs when it runs."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from llava import __version__
from llava.cli_config import join_lists, parse_prices, split_list
from llava.cli_options import (
    Config,
    Detector,
    Device,
    Dtype,
    Endpoint,
    OptionalDetector,
    OptionalDetoxifier,
    RequestTimeout,
    RunFolder,
    Threshold,
)
from llava.errors import FailedRunError, InputError
from llava.process import end_process, leave

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="mllm-protector",
    help="Make a multimodal LLM safe without changing it: detect harmful responses, rewrite them, measure the result.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Handle what stands before the command's name."""
    if version:
        typer.echo(f"mllm-protector {__version__}")
        raise typer.Exit()


@app.command()
def generate(
    model: Annotated[str, typer.Option(help="Multimodal model: 'embedded', a folder or a hub id.")],
    output: Annotated[Path, typer.Option(help="Folder of the run; run again on it to resume.")],
    benchmark: Annotated[
        str, typer.Option(help="mm_safetybench, figstep, sample, another known name, or a question file.")
    ] = "mm_safetybench",
    data_root: Annotated[Path | None, typer.Option(help="Folder of the benchmark's files.")] = None,
    detector: OptionalDetector = None,
    detoxifier: OptionalDetoxifier = None,
    threshold: Threshold = None,
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
    attn_implementation: Annotated[str | None, typer.Option(help="eager, sdpa, flash_attention_2 [chosen].")] = None,
    load_in_8bit: Annotated[bool, typer.Option(help="Quantise the model to 8 bits.")] = False,
    load_in_4bit: Annotated[bool, typer.Option(help="Quantise the model to 4 bits.")] = False,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    config: Config = None,
) -> None:
    """Ask a model a benchmark's questions, guard the answers, write records.jsonl. Resumes."""
    options = {name: value for name, value in locals().items() if name != "config"}
    from llava.eval.runner import run_generation
    from llava.eval.settings import GenerationSettings

    for part in ("detector", "detoxifier"):
        options[part] = None if options[part] in ("none", "") else options[part]
    options["image_types"], options["scenarios"] = split_list(image_types), split_list(scenarios, at_blanks=False)
    options["batch_size"] = int(batch_size) if batch_size.lstrip("-").isdigit() else batch_size
    typer.echo(run_generation(GenerationSettings(**options)))


@app.command()
def score(
    folder: RunFolder,
    judge: Annotated[
        list[str] | None, typer.Option(help="keyword, detector[:PATH], guard:[FORM@]PATH, chat:MODEL[@URL]; several.")
    ] = None,
    estimate: Annotated[bool, typer.Option(help="Only say what chat judges would be asked.")] = False,
    prices: Annotated[
        str | None, typer.Option(help="IN,OUT for a million tokens, e.g. 2.50,10; adds the cost to what will be asked.")
    ] = None,
    request_timeout: RequestTimeout = 600.0,
    device: Device = None,
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Judge a run's responses and write summary.json and each scenario's merged.json."""
    from llava.eval.report import print_summary
    from llava.eval.scoring import estimate_judging, score_run

    judges, paid = split_list(judge), parse_prices(prices)
    if estimate:
        for line in estimate_judging(folder, judges):
            typer.echo(line.describe(paid))
        return
    run = score_run(folder, judges, device=device, dtype=dtype, prices=paid, request_timeout=request_timeout)
    print_summary(run)


@app.command()
def report(folder: RunFolder, config: Config = None) -> None:
    """Write report.html, report.md and table.tex of a scored run."""
    from llava.eval.report import render_report

    typer.echo(render_report(folder))


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Scored runs; the first one is the reference.")],
    output: Annotated[Path | None, typer.Option(help="Markdown file to write as well.")] = None,
) -> None:
    """Put scored runs side by side, each tested against the first."""
    from llava.eval.comparison import compare_runs, print_comparison, render_comparison
    from llava.files import write_text_atomic

    rows = compare_runs(folders)
    if output is not None:
        write_text_atomic(output, render_comparison(rows))
    print_comparison(rows)


@app.command()
def detect(
    input: Annotated[Path, typer.Option(help="JSONL rows with response and, where known, prompt.")],
    output: Annotated[Path, typer.Option(help="JSONL to write: the rows with harm_score and flagged.")],
    detector: Detector = "embedded",
    threshold: Threshold = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a forward pass.")] = 16,
    device: Device = None,
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Score responses: adds harm_score (1 = harmful) and flagged to each row."""
    from llava.protector.detector import HarmDetector
    from llava.protector.jsonl import check_output, detect_rows, read_responses, write_rows

    rows = read_responses(input)
    check_output(output)
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError(f"--threshold {threshold} must be above 0 and at most 1")
    scorer = HarmDetector.from_pretrained(detector, device=device, dtype=dtype)
    done = write_rows(output, detect_rows(scorer, rows, threshold, batch_size), len(rows), "detect")
    typer.echo(f"{output}: {sum(row['flagged'] for row in done)} of {len(done)} responses flagged")


@app.command()
def detoxify(
    input: Annotated[Path, typer.Option(help="JSONL rows with response and, where known, prompt.")],
    output: Annotated[Path, typer.Option(help="JSONL to write: the rows with detoxified.")],
    detoxifier: Annotated[str, typer.Option(help="Detoxifier: 'embedded', a folder or a hub id.")] = "embedded",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a forward pass.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest rewrite in tokens.")] = 256,
    device: Device = None,
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Rewrite responses: adds detoxified to each row; rows with flagged false keep their response."""
    from llava.protector.detoxifier import Detoxifier
    from llava.protector.jsonl import check_output, detoxify_rows, read_responses, write_rows

    rows = read_responses(input)
    check_output(output)
    writer = Detoxifier.from_pretrained(detoxifier, device=device, dtype=dtype)
    done = write_rows(output, detoxify_rows(writer, rows, batch_size, max_new_tokens), len(rows), "detoxify")
    typer.echo(f"{output}: {sum(row['detoxified'] != row['response'] for row in done)} of {len(done)} rewritten")


@app.command()
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
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a forward pass.")] = 16,
    device: Device = None,
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Choose a detector's threshold for a false-positive rate, and its temperature, on labelled rows."""
    options = {name: value for name, value in locals().items() if name != "config"}
    from llava.train.figures import calibrate_with_figures

    found = calibrate_with_figures(**options)
    typer.echo(f"threshold {found.threshold:.6f}, temperature {found.temperature:.4f}")
    typer.echo(f"false positives {found.false_positive_rate:.2%} of {found.harmless} harmless rows")
    typer.echo(f"recall {found.recall:.2%} of {found.harmful} harmful rows")
    typer.echo(f"expected calibration error {found.ece_before:.4f} before, {found.ece_after:.4f} after")
    if found.unscored:
        typer.echo(f"{found.unscored} rows could not be scored and count as flagged")


@app.command()
def merge(
    base: Annotated[str, typer.Option(help="Base model the adapter was trained on.")],
    adapter: Annotated[str, typer.Option(help="PEFT adapter: detector or detoxifier.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    tolerance: Annotated[float, typer.Option(help="Largest logit difference that passes.")] = 1e-3,
    dtype: Dtype = "float32",
    config: Config = None,
) -> None:
    """Merge an adapter into its base, and check that the result gives the same logits."""
    from llava.model.merge import merge_adapter

    typer.echo(merge_adapter(base, adapter, output, tolerance=tolerance, dtype=dtype))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="LLaVA checkpoint: folder or hub id.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    to: Annotated[str, typer.Option(help="hf (from the original format) or original (from HF-native).")] = "hf",
    base: Annotated[str | None, typer.Option(help="Language model of a LoRA or projector-only checkpoint.")] = None,
    vision_tower: Annotated[str | None, typer.Option(help="CLIP tower, when the one named cannot be reached.")] = None,
    prompt_version: Annotated[str | None, typer.Option(help="v0, v1 or llama_2 [the checkpoint's own].")] = None,
) -> None:
    """Convert a LLaVA checkpoint, original to HF-native or back, and prove that its logits are the same."""
    from llava.model.convert import convert_checkpoint

    difference = convert_checkpoint(
        source, output, to=to, base=base, vision_tower=vision_tower, prompt_version=prompt_version
    )
    typer.echo(f"{output}: largest logit difference {difference:.2e}")


@app.command()
def quickstart(
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("quickstart-output"),
    num_processes: Annotated[int | None, typer.Option(help="Processes that share the work [detected].")] = None,
    limit: Annotated[int | None, typer.Option(help="Ask at most so many questions.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response in tokens.")] = 32,
    config: Config = None,
) -> None:
    """Run the embedded model on the sample benchmark, unprotected and protected, and open the comparison."""
    from llava.quickstart import run_quickstart

    run_quickstart(output, num_processes=num_processes, limit=limit, max_new_tokens=max_new_tokens)


@app.command()
def doctor() -> None:
    """Print versions, devices and dtypes, what is missing, and the command that mends it."""
    from llava.doctor import examine, print_findings

    raise typer.Exit(print_findings(examine()))


PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command("train-detector", context_settings=PASS_THROUGH)
def train_detector(context: typer.Context) -> None:
    """Train a harm detector; takes the flags of python -m llava.train.harm_detector."""
    from llava.train.harm_detector import main as train

    raise typer.Exit(train(context.args))


@app.command("train-detoxifier", context_settings=PASS_THROUGH)
def train_detoxifier(context: typer.Context) -> None:
    """Train a detoxifier; takes the flags of python -m llava.train.detoxifier."""
    from llava.train.detoxifier import main as train

    raise typer.Exit(train(context.args))


@app.command("train-llava", context_settings=PASS_THROUGH)
def train_llava(context: typer.Context) -> None:
    """Train a LLaVA (--stage pretrain or finetune); takes the flags of python -m llava.train.llava."""
    from llava.train.llava import main as train

    raise typer.Exit(train(context.args))


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Words after the program's name; None takes them from the shell.

    Returns:
        Exit code: 0 done, 1 failed, 2 bad usage or input (one line on stderr says what and how to mend it), 130 ended
        by the user.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    arguments = join_lists(sys.argv[1:] if argv is None else argv)
    try:
        result: Any = app(args=arguments, standalone_mode=False, prog_name="mllm-protector")
    except InputError as error:
        return _fail(str(error), 2)
    except FailedRunError as error:
        return _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _end_interrupted()
    except Exception as error:
        # Typer's own usage errors carry their message and code; its class has moved between versions.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _fail(f"{error.format_message()} (see --help)", 2)
        raise
    # Newer versions of Typer turn Ctrl-C into an exit code of their own.
    return _end_interrupted() if result == INTERRUPTED else result if isinstance(result, int) else 0


def _end_interrupted() -> int:
    """Say that the user ended the command, and end at once where threads still wait for a server."""
    code = _fail("interrupted; run the same command again to go on", INTERRUPTED)
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        # The interpreter would wait for them, up to --request-timeout; what they may bring is not written any more.
        leave(code)
    return code


def _fail(message: str, code: int) -> int:
    """Print one line to stderr and return the exit code."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def run() -> NoReturn:
    """Run a command as a process: the console script."""
    end_process(main())


if __name__ == "__main__":
    run()
