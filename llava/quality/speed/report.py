"""What `mllm-protector doctor --benchmark` prints: a table of the ways to load a detector, and the flags to type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.quality.speed.measuring import LEAST_GAIN, MOST_AUROC_LOST, Figures, Sample, recommend

HEADINGS = ("loaded as", "ms each", "speed", "MB", "scores ±", "flags ±", "AUROC ±")
LEGEND = (
    "Milliseconds an answer, speed beside float32, and megabytes of weights. Of what is faster: the largest change of "
    "a score, answers whose flag changes, and the change of AUROC."
)
DASH = "–"


def list_rows(figures: Sequence[Figures]) -> list[list[str]]:
    """Return the rows of the table."""
    return [
        [
            each.candidate.name,
            DASH if each.seconds is None else f"{1000 * each.seconds:.1f}",
            DASH if each.gain is None else f"{each.gain:.2f}×",
            f"{each.weight_bytes / 1e6:.0f}" if each.weight_bytes else DASH,
            DASH if each.largest_change is None else f"{each.largest_change:.4f}",
            DASH if each.largest_change is None else str(each.flags_changed),
            DASH if each.auroc_change is None else f"{each.auroc_change:+.4f}",
        ]
        for each in figures
    ]


def render_advice(figures: Sequence[Figures]) -> str:
    """Return what is recommended, with the flags to type."""
    best = recommend(list(figures))
    if best is None:
        return (
            f"Nothing is {LEAST_GAIN:g} times as fast as float32 on this machine with scores as good (AUROC within "
            f"{MOST_AUROC_LOST:g}). On a CPU that is what --dtype auto takes; elsewhere give --dtype float32."
        )
    return (
        f"{best.candidate.name} is {best.gain:.2f} times as fast as float32 with scores as good (AUROC within "
        f"{MOST_AUROC_LOST:g}). Give to detect, calibrate, guard-bench and serve:\n  {' '.join(best.candidate.flags)}"
    )


def run_benchmark(detector: str, base: str | None = None, device: str | None = None) -> int:
    """Measure a detector in every way that this device offers, and print the table and the advice.

    Args:
        detector: `embedded`, a folder, or a hub id.
        base: Base model of an adapter, instead of the one that it names.
        device: Torch device; None takes the accelerator where there is one.

    Returns:
        0.

    Raises:
        InputError: When the detector cannot be loaded.
    """
    from llava.model.devices import pick_device
    from llava.model.quiet import quiet_bitsandbytes
    from llava.quality.speed.candidates import list_candidates
    from llava.quality.speed.measuring import measure_candidates, read_sample
    from llava.terminal import build_console, clean_text

    console = build_console()
    place, sample = pick_device(device), read_sample()
    figures = []
    with quiet_bitsandbytes():
        for each in measure_candidates(detector, list_candidates(place), sample, base=base):
            figures.append(each)
            console.print(f"measured {each.candidate.name}", style="dim")
    print_table(figures, sample, clean_text(detector), str(place))
    for each in figures:
        if each.trouble:
            console.print(f"{each.candidate.name} did not run: {clean_text(each.trouble)}", markup=False)
    console.print(render_advice(figures), markup=False, highlight=False)
    return 0


def print_table(figures: Sequence[Figures], sample: Sample, detector: str, device: str) -> None:
    """Print the figures as a table on stdout."""
    import torch
    from rich.table import Table
    from rich.text import Text

    from llava.terminal import build_console

    name = Path(detector).name or detector
    title = f"{name} on {device}, {torch.get_num_threads()} threads, {len(sample.responses)} made answers"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if place == 0 else "right", no_wrap=True)
    for row in list_rows(figures):
        table.add_row(*map(Text, row))
    console = build_console()
    console.print(table)
    console.print(LEGEND, markup=False, highlight=False)
