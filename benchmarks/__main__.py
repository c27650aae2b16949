"""Run the benchmarks and write their ratios: `python -m benchmarks --output FILE.json [--only NAME ...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from benchmarks.measurement import Measurement
from llava.eval.run.environment import fix_rounding
from llava.files import write_json
from llava.places import check_output_file
from llava.process import report_errors

BENCHMARKS = {
    "evaluation": "benchmarks.evaluation",
    "training": "benchmarks.training",
    "rewriting": "benchmarks.rewriting",
    "streaming": "benchmarks.streaming",
    "detection": "benchmarks.detection",
}
"""Name → module with `add_arguments` and `measure`; a new benchmark is a module and a line here."""


class BenchmarkModule(Protocol):
    """What a benchmark module offers."""

    def add_arguments(self, parser: argparse._ArgumentGroup) -> None:
        """Add its options, each beginning with the benchmark's name."""

    def measure(self, options: argparse.Namespace) -> Iterable[Measurement]:
        """Measure and return the ratios."""


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked and write a list of `{name, ours, baseline, ratio, goal, holds, unit, repeats}`.

    Returns:
        Exit code: 0 when all was measured, whether the goals hold or not; 2 on bad input, 1 on a failure.
    """
    fix_rounding()  # before any benchmark brings torch in, so that runs may stay in this process
    modules = {name: cast(BenchmarkModule, import_module(module)) for name, module in BENCHMARKS.items()}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", choices=sorted(modules), nargs="+", help="benchmarks to run [all]")
    for name, module in modules.items():
        module.add_arguments(parser.add_argument_group(name))
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []

    def measure() -> None:
        check_output_file(options.output)
        for name in options.only or modules:
            rows.extend(measurement.to_dict() for measurement in modules[name].measure(options))
        write_json(options.output, rows)

    if (code := report_errors(measure)) != 0:
        return code
    for row in rows:
        holds = "holds" if row["holds"] else "does not hold"
        print(
            f"{row['name']}: {row['ours']:.3f} against {row['baseline']:.3f} {row['unit']}, "
            f"{row['ratio']:.1f} times (goal {row['goal']:g}: {holds})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
