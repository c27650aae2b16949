"""`--paper`: the recipe of the paper in one flag of both training commands, what their shells do without arguments."""

from __future__ import annotations

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from llava.data.training.sources import iter_source, parse_mixture
from llava.errors import HubError, InputError
from llava.model.devices import pick_device
from llava.options import read_options

FLAG = "--paper"
CONFIGS = Path(__file__).with_name("configs")
ZERO = Path(__file__).resolve().parents[2] / "scripts" / "zero2.json"
"""DeepSpeed's settings; in a checkout only."""
MODULES = {"detector": "llava.train.harm_detector", "detoxifier": "llava.train.detoxifier"}
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What a launcher tells the processes that it starts."""

logger = logging.getLogger(__name__)


def apply_paper(kind: str, argv: list[str] | None) -> list[str]:
    """Replace `--paper` by the flags of the paper's recipe; without it the arguments come back as they are.

    The recipe's data and model are fetched here, and DeepSpeed's launcher takes the place of this process where it is
    installed and a GPU is there. Flags that are given win over the recipe. Run again, the training goes on.

    Args:
        kind: `detector` or `detoxifier`.
        argv: Arguments without the program name; None takes the process's.

    Returns:
        The arguments to train with.

    Raises:
        InputError: When `--config` is given too, or the hub does not give what is wanted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if FLAG not in argv:
        return argv
    flags = build_flags(kind, [word for word in argv if word != FLAG])
    if any(name in os.environ for name in LAUNCHED):
        return flags
    if not {"-h", "--help", "--dry-run"} & set(flags):
        fetch_sources(kind, flags)
    if "--deepspeed" in flags:
        port = os.environ.get("MASTER_PORT")
        options = ["--master_port", port] if port else []
        command = [sys.executable, "-m", "deepspeed.launcher.runner", *options, "--module", MODULES[kind], *flags]
        logger.info("starting DeepSpeed: %s", " ".join(command))
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(command[0], command)  # noqa: S606 - our own interpreter  # nosec B606
    return flags


def build_flags(kind: str, given: list[str]) -> list[str]:
    """Return the recipe's flags and, behind them, those that are given.

    Rows of the user's own are split by prompt unless they are a folder in the data set's shape, with a test file.

    Args:
        kind: `detector` or `detoxifier`.
        given: The user's flags, without `--paper`.
    """
    names = {word.partition("=")[0].replace("_", "-") for word in given if word.startswith("--")}
    if "--config" in names:
        raise InputError(f"{FLAG} and --config are two recipes; leave out one of them")
    flags = ["--config", str(CONFIGS / f"paper_{kind}.yaml"), "--output-dir", f"runs/paper_{kind}"]
    if "--resume" not in names:
        flags.append("--resume")
    data = read_flag(given, "--train-data")
    if data is not None and "--eval-data" not in names:
        flags += ["--eval-data", data if _has_test_file(data) else ""]
    if "--deepspeed" not in names and "--use-cpu" not in names and pick_device().type == "cuda":
        if find_spec("deepspeed") is not None and ZERO.is_file():
            flags += ["--deepspeed", str(ZERO)]
        else:
            logger.warning("without DeepSpeed: it is not installed (pip install -e '.[train]' in a checkout)")
    return [*flags, *given]


def fetch_sources(kind: str, flags: list[str]) -> None:
    """Fetch the data set and the model that a run will read, before any process is started.

    Raises:
        HubError: When one of them is neither here nor to be had; one line names both, and the flags for local ones.
    """
    from huggingface_hub.utils import logging as hub_logging

    from llava.model.embedded.stack import BASE_ID, EMBEDDED, resolve_base_name
    from llava.model.hub import fetch

    recipe = read_options(CONFIGS / f"paper_{kind}.yaml")
    data = read_flag(flags, "--train-data") or recipe["train_data"]
    base = read_flag(flags, "--base") or recipe["base"]
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # it tells of every try again
    try:
        # The model first: it is known at once whether the hub answers for one.
        fetch(resolve_base_name(BASE_ID if base == EMBEDDED else base), "base model", "check --base")
        for part in parse_mixture(data):
            next(iter_source(part.source), None)
    except HubError:
        raise HubError(
            f"the paper's {kind} wants the data set {data} and the model {base}, and the hub does not give them; with "
            f"local copies: bash scripts/{_SHELLS[kind]} {FLAG} --train-data FOLDER --base FOLDER"
        ) from None
    finally:
        hub_logging.set_verbosity(level)


_SHELLS = {"detector": "train_harm_detector.sh", "detoxifier": "train_detoxifier.sh"}


def read_flag(flags: list[str], name: str) -> str | None:
    """Return the value of a flag in either spelling, the last one that is given; None without it.

    Example:
        >>> read_flag(["--base", "a", "--train_data=b"], "--train-data")
        'b'
    """
    value = None
    for place, word in enumerate(flags):
        head, equals, tail = word.partition("=")
        if head.replace("_", "-") == name:
            value = tail if equals else flags[place + 1] if place + 1 < len(flags) else None
    return value


def _has_test_file(data: str) -> bool:
    """Whether every part of a mixture is a hub id or a folder with a test file, so that it can be evaluated on."""
    folders = [Path(part.source) for part in parse_mixture(data)]
    return all(not folder.exists() or (folder.is_dir() and any(folder.rglob("*test*"))) for folder in folders)
