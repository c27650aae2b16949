"""Train an adapter as the shipped one was: data, training and calibration in one command.

    python scripts/train_embedded.py detector --data DIR --output DIR
    python scripts/train_embedded.py detoxifier --data DIR --output DIR

`--data` holds the files that the recipe names, or the three clones they are made from (`artifacts`, `ECSO`, `hh-rlhf`,
see scripts/prepare_embedded_data.py). The adapter lies in OUTPUT/detector or OUTPUT/detoxifier, made data in
OUTPUT/data. Run again after an interruption, the training goes on. Further flags go to the training and win over the
recipe's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.errors import InputError
from llava.places import check_output_folder
from llava.process import report_errors
from llava.train.embedded.data import write_files

RECIPES = Path(__file__).resolve().parents[1] / "configs"
CLONES = ("artifacts", "ECSO", "hh-rlhf")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("kind", choices=("detector", "detoxifier"), help="which adapter")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files, or of the three clones")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    args, more = parser.parse_known_args(argv)
    codes: list[int] = []

    def run() -> None:
        check_output_folder(args.output)
        codes.append(train_embedded(args.kind, args.data, args.output, more))

    return report_errors(run) or codes[0]


def train_embedded(kind: str, data: Path, output: Path, more: list[str]) -> int:
    """Make the data where need be, train by the recipe, calibrate a detector; return the exit code."""
    from llava.options import read_options

    recipe = RECIPES / f"embedded_{kind}.yaml"
    names = [Path(source).name for source in read_options(recipe)["train_data"].split(",")]
    folder = data if all((data / name).is_file() for name in names) else prepare(data, output / "data", names)
    adapter = output / kind
    flags = ["--config", str(recipe), "--train-data", ",".join(str(folder / name) for name in names)]
    code = train(kind, [*flags, "--output-dir", str(adapter), "--resume", *more])
    if code == 0 and kind == "detector":
        print(calibrate(adapter, folder))
    return code


def prepare(clones: Path, target: Path, names: list[str]) -> Path:
    """Make the data files from clones, and return their folder.

    Raises:
        InputError: When the folder holds neither the files nor the clones, or a clone is of another repository.
    """
    missing = [name for name in CLONES if not (clones / name).is_dir()]
    if missing:
        raise InputError(f"--data {clones} has neither {', '.join(names)} nor the clones {', '.join(missing)}")
    artifacts, ecso, hh_rlhf = (clones / name for name in CLONES)
    write_files(artifacts, ecso, hh_rlhf, target)
    return target


def train(kind: str, flags: list[str]) -> int:
    """Run the training of a kind; return its exit code."""
    if kind == "detector":
        from llava.train import harm_detector

        return harm_detector.main(flags)
    from llava.train import detoxifier

    return detoxifier.main(flags)


def calibrate(adapter: Path, data: Path) -> str:
    """Set threshold and temperature on the prompts that training held out, and return both in words."""
    from llava.quality import cards
    from llava.quality.figures import calibrate_with_figures

    found = calibrate_with_figures(
        str(adapter),
        ",".join(str(data / f"{name}.jsonl") for name in (cards.RESPONSES, cards.ORDINARY)),
        cards.FALSE_POSITIVE_RATE,
        in_place=True,
        held_out=True,
        dtype="float32",
    )
    return f"{adapter}: threshold {found.threshold:.6f}, temperature {found.temperature:.4f}, recall {found.recall:.2%}"
