"""Measure what the package costs against plain alternatives: `python -m benchmarks --output FILE.json`."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from benchmarks.measurement import Measurement
from llava.eval.run.environment import fix_rounding
from llava.files import write_json, write_text_atomic
from llava.places import check_output_file
from llava.process import BAD_INPUT, FAILED, describe_failure, report_errors

BENCHMARKS = {
    "startup": "benchmarks.startup",
    "backbone": "benchmarks.backbone",
    "detection": "benchmarks.detection",
    "guards": "benchmarks.guards",
    "guarding": "benchmarks.guarding",
    "streaming": "benchmarks.streaming",
    "growth": "benchmarks.growth",
    "evaluation": "benchmarks.evaluation",
    "detoxification": "benchmarks.detoxification",
    "rewriting": "benchmarks.rewriting",
    "training": "benchmarks.training",
}
"""Name → module with `add_arguments` and `measure`, the quick ones first; a new benchmark is a module and a line here.

Of its options the one that says how often each side is measured is called `--NAME-repeats`.
"""


class BenchmarkModule(Protocol):
    """What a benchmark module offers."""

    def add_arguments(self, parser: argparse._ArgumentGroup) -> None:
        """Add its options, each beginning with the benchmark's name."""

    def measure(self, options: argparse.Namespace) -> Iterable[Measurement]:
        """Measure and return the ratios."""


@dataclass
class Results:
    """What a run of benchmarks found."""

    rows: list[Measurement] = field(default_factory=list)
    """What was measured, in order."""
    faults: dict[str, str] = field(default_factory=dict)
    """Why a benchmark could not be measured to its end, by its name."""
    codes: list[int] = field(default_factory=list)
    """The exit code of each fault."""

    @property
    def code(self) -> int:
        """Exit code: 0 all was measured, 2 nothing but bad input stood in the way, 1 else."""
        return max(self.codes, default=0) if set(self.codes) <= {BAD_INPUT} else FAILED

    def add_fault(self, name: str, line: str, code: int) -> None:
        """Note why a benchmark could not be measured."""
        self.faults[name] = line
        self.codes.append(code)
        print(f"error: {name}: {line}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None, benchmarks: Mapping[str, str] = BENCHMARKS) -> int:
    """Measure what was asked and write a list of `{name, ours, baseline, ratio, goal, holds, unit, repeats}`.

    What fails is said, and the others go on; what was measured is written in any case, after each benchmark.

    Args:
        argv: Command line; None takes the process's own.
        benchmarks: Name → module of all that can be asked for.

    Returns:
        Exit code: 0 when all was measured, whether the goals hold or not; 2 on bad input, 1 on a failure.
    """
    fix_rounding()  # before any benchmark brings torch in, so that runs may stay in this process
    modules, missing = load_modules(benchmarks)
    options = build_parser(benchmarks, modules).parse_args(argv)
    results = Results()
    code = report_errors(lambda: measure_all(options, benchmarks, modules, missing, results))
    return code or results.code


def load_modules(benchmarks: Mapping[str, str]) -> tuple[dict[str, BenchmarkModule], dict[str, str]]:
    """Return the modules that are there, and a line for each that is not; both by name."""
    modules: dict[str, BenchmarkModule] = {}
    missing: dict[str, str] = {}
    for name, module in benchmarks.items():
        try:
            modules[name] = cast(BenchmarkModule, import_module(module))
        except ImportError as error:
            missing[name] = f"{module} cannot be imported ({error})"
    return modules, missing


def build_parser(benchmarks: Iterable[str], modules: Mapping[str, BenchmarkModule]) -> argparse.ArgumentParser:
    """Return the command line with the options of all benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--markdown", type=Path, help="also write the table as Markdown")
    parser.add_argument("--plot", type=Path, help="also draw the ratios, as PNG; needs matplotlib")
    parser.add_argument("--only", choices=sorted(benchmarks), nargs="+", help="benchmarks to run [all]")
    parser.add_argument("--repeats", type=count, help="how often each side of every benchmark is measured [its own]")
    for name, module in modules.items():
        module.add_arguments(parser.add_argument_group(name))
    return parser


def count(text: str) -> int:
    """Read a number of repeats.

    Example:
        >>> count("3")
        3
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def measure_all(
    options: argparse.Namespace,
    benchmarks: Mapping[str, str],
    modules: Mapping[str, BenchmarkModule],
    missing: Mapping[str, str],
    results: Results,
) -> None:
    """Run the benchmarks, print their lines and write the files that were asked for."""
    from benchmarks.reporting.machine import describe_machine
    from benchmarks.reporting.report import check_plotting, draw_ratios, render_line, render_markdown

    for path in filter(None, (options.output, options.markdown, options.plot)):
        check_output_file(path)
    if options.plot:
        check_plotting()
    for name in options.only or benchmarks:
        if name in missing:
            results.add_fault(name, missing[name], FAILED)
            continue
        if options.repeats is not None:
            setattr(options, f"{name}_repeats", options.repeats)
        measure_one(name, modules[name], options, results)
        if results.rows:  # now already: all of them take an hour, and who ends them early keeps what there is
            write_json(options.output, [row.to_dict() for row in results.rows])
    if results.rows:
        machine = describe_machine()
        print(machine)
        for row in results.rows:
            print(render_line(row))
        if options.markdown:
            plot = Path(os.path.relpath(options.plot, options.markdown.parent)).as_posix() if options.plot else None
            write_text_atomic(options.markdown, render_markdown(results.rows, machine, results.faults, plot))
        if options.plot:
            draw_ratios(results.rows, machine, options.plot)


def measure_one(name: str, module: BenchmarkModule, options: argparse.Namespace, results: Results) -> None:
    """Run one benchmark; when it fails, what it measured before counts, and the failure is noted."""
    try:
        for row in module.measure(options):
            results.rows.append(row)
    except Exception as error:  # noqa: BLE001 - whatever stops one benchmark, the others are still worth measuring
        line, code = describe_failure(error) or (f"{type(error).__name__}: {error}", FAILED)
        if describe_failure(error) is None:
            traceback.print_exc()
        results.add_fault(name, line, code)


if __name__ == "__main__":
    sys.exit(main())
