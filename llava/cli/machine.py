"""Commands for the first minutes: the demonstration, and what this machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llava.cli.options import Config, DetectorBase, Device


def quickstart(
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("quickstart-output"),
    num_processes: Annotated[int | None, typer.Option(help="Processes that share the work [detected].")] = None,
    limit: Annotated[int | None, typer.Option(help="Ask at most so many questions.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest response in tokens.")] = 32,
    config: Config = None,
) -> None:
    """Run the embedded model on the shipped samples, unprotected and protected, and write the comparison."""
    from llava.cli.quickstart import run_quickstart

    run_quickstart(output, num_processes=num_processes, limit=limit, max_new_tokens=max_new_tokens)


def doctor(
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Time a detector in each way that this device can load it.")
    ] = False,
    detector: Annotated[str, typer.Option(help="With --benchmark: 'embedded', a folder or a hub id.")] = "embedded",
    detector_base: DetectorBase = None,
    device: Device = None,
    config: Config = None,
) -> None:
    """Print versions, devices and dtypes, what is missing, and the command that mends it."""
    if benchmark:
        from llava.quality.speed.report import run_benchmark

        raise typer.Exit(run_benchmark(detector, detector_base, device))
    from llava.cli.doctor import examine, print_findings

    raise typer.Exit(print_findings(examine()))
