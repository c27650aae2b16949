"""What the training entry points share: the base, the adapter, checkpoints, and what is written at the end."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from llava.errors import InputError
from llava.eval.run.world import World, connect_store, detect_world
from llava.files import write_text_atomic
from llava.model.adapter_check import check_resumable
from llava.model.devices import pick_device, pick_dtype
from llava.model.language_model import language_model_folder
from llava.places import check_output_folder
from llava.process import report_errors
from llava.protector.classifier import HarmClassifier
from llava.protector.config import ProtectorConfig
from llava.protector.merge import to_sequence_classifier
from llava.train.arguments import RESOLVED_NAME, ModelArguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Trainer

logger = logging.getLogger(__name__)

SETTLING_SECONDS = 0.5
"""How long threads that outlive their process group get to come to rest."""

_groups = itertools.count()


def run_entry_point(train: Callable[[list[str] | None], None], argv: list[str] | None) -> int:
    """Run a training command; what the user can mend is one line on stderr (exit codes as `report_errors`).

    A process group that the training made is left; that of the program which called us stays.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    ours = not in_group()
    world = detect_world()
    if ours and world is not None:
        import_before_group()
        code = report_errors(lambda: train_in_group(train, argv, world))
    else:
        code = report_errors(lambda: train(argv))
    # After an error the others may still be busy, and NCCL's groups are left together.
    if ours and (code == 0 or (in_group() and torch.distributed.get_backend() == "gloo")):
        leave_group()
    return code


def in_group() -> bool:
    """Tell whether this process is in a process group."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def import_before_group() -> None:
    """Import the modules that take the process group of the moment for the default of an argument.

    Imported later, as accelerate does, they would keep the group and its threads for good; see `leave_group`.
    """
    import torch.distributed.nn.functional  # noqa: F401

    if importlib.util.find_spec("deepspeed") is not None:
        import deepspeed.comm  # noqa: F401


def train_in_group(train: Callable[[list[str] | None], None], argv: list[str] | None, world: World) -> None:
    """Train in a process group of this training's own.

    The first group is accelerate's to make. Every later one of the same processes needs keys of its own in the
    launcher's store: a process that is done sooner would take the addresses of the first group for those of the second,
    and wait for a connection that is about to be closed.

    Raises:
        InputError: When the environment does not say where the other processes are.
    """
    # Connected from the first training on: the process that keeps the store would close it in between otherwise.
    store, number = connect_store(world), next(_groups)
    if number > 0:
        torch.distributed.init_process_group(
            store=torch.distributed.PrefixStore(f"mllm-protector/training/{number}", store),
            rank=world.rank,
            world_size=world.size,
        )
    train(argv)


def leave_group() -> None:
    """Leave the process group, where there is one, and let go of everything that refers to it.

    The threads of gloo end with the last reference to their group. One that wants the interpreter while that is ending
    would abort the process.
    """
    if in_group():
        deepspeed = sys.modules.get("deepspeed")
        if deepspeed is not None and deepspeed.comm.is_initialized():
            deepspeed.comm.destroy_process_group()
            # Its hooks refer to its groups from where the collector does not look. Their threads have nothing left to
            # do, but may want the interpreter once more, for the last tensor that they let go of.
            time.sleep(SETTLING_SECONDS)
        else:
            torch.distributed.destroy_process_group()
    # A trainer, its model and its optimiser refer to each other.
    gc.collect()


def resolve_base(arguments: ModelArguments) -> tuple[str, str]:
    """Return where the base is loaded from and the name that the checkpoint records.

    Of a LLaVA the language model inside is loaded, and the LLaVA's own name recorded: whoever uses the adapter takes
    the same one out of it again, on any machine.
    """
    from llava.model.embedded.stack import BASE_ID, EMBEDDED, resolve_base_name
    from llava.model.hub import fetch

    name = BASE_ID if arguments.base == EMBEDDED else arguments.base
    folder = language_model_folder(fetch(resolve_base_name(name), "base model", "check --base"))
    return str(folder), arguments.base_name or name


def loading_options(arguments: ModelArguments, device: torch.device | None = None) -> dict[str, Any]:
    """Return what `from_pretrained` is told about the base: type, attention kernel, quantization.

    Args:
        arguments: How the base is loaded and adapted.
        device: Where it will be trained; None detects.
    """
    options: dict[str, Any] = {
        # Full fine-tuning needs full-precision weights; a frozen base takes what the device likes.
        "dtype": pick_dtype(device or pick_device(), arguments.base_dtype) if arguments.frozen_base else torch.float32
    }
    if arguments.attn_implementation:
        options["attn_implementation"] = arguments.attn_implementation
    if arguments.load_in_4bit:
        from transformers import BitsAndBytesConfig

        if importlib.util.find_spec("bitsandbytes") is None:
            raise InputError("--load-in-4bit needs bitsandbytes; install it: pip install bitsandbytes")
        # QLoRA, arXiv 2305.14314: NF4 weights with quantized constants under a full-precision adapter.
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=options["dtype"],
        )
    return options


def prepare_output(folder: str, resume: bool) -> Path | None:
    """Check the output folder and find where to go on.

    Returns:
        The newest complete checkpoint when resuming, else None.

    Raises:
        InputError: When the folder has files and `resume` is not set.
    """
    if not folder:
        raise InputError("--output-dir is missing; give a folder for the checkpoint")
    path = Path(folder)
    check_output_folder(path)
    if resume:
        return newest_checkpoint(path)
    # Only one process looks: it may itself have begun to write when another gets here.
    if path.is_dir() and any(path.iterdir()) and os.environ.get("RANK", "0") == "0":
        raise InputError(f"--output-dir {folder} is not empty; add --resume to go on, or choose another folder")
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete `checkpoint-N` of a run; None when there is none.

    The Trainer writes `trainer_state.json` last, so a checkpoint whose writer was killed has none, or a torn one.
    """
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
        if is_complete(path):
            return path
        logger.warning("skipped %s: it is not complete", path)
    return None


def is_complete(checkpoint: Path) -> bool:
    """Tell whether a checkpoint was written to its end."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and f"checkpoint-{state.get('global_step')}" == checkpoint.name


def run_training(trainer: Trainer, checkpoint: Path | None) -> None:
    """Train, from a checkpoint where there is one.

    Raises:
        InputError: When the checkpoint's adapter is not whole: the Trainer would go on with fresh parts in its place.
    """
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if checkpoint is not None and hasattr(model, "peft_config"):
        check_resumable(model, checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def save_trained(trainer: Trainer, folder: str, base_name: str, preprocessor: Any) -> dict[str, torch.Tensor] | None:
    """Write what was trained: an adapter, or the whole model with its tokenizer or processor, as safetensors.

    An adapter uses its base's preprocessor; a whole model gets its own copy.

    Returns:
        The whole model's weights in the process that wrote them, else None.
    """
    # Under ZeRO-3 and FSDP every process takes part in gathering the weights.
    state: dict[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return None
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    Path(folder).mkdir(parents=True, exist_ok=True)
    if hasattr(model, "peft_config"):
        for adapter_config in model.peft_config.values():
            adapter_config.base_model_name_or_path = base_name
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
        (Path(folder) / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    else:
        if isinstance(model, HarmClassifier):
            model = to_sequence_classifier(model.config, state)
        # A loaded LLaVA remembers how its file's names were changed, and under ZeRO-3 changes them back wrongly.
        vars(model).pop("_weight_conversions", None)
        model.save_pretrained(folder, state_dict=state)
        preprocessor.save_pretrained(folder)
    return state


def save_arguments(folder: str, arguments: dict[str, Any]) -> None:
    """Write `train_config.yaml`, which `--config` takes for the same run again."""
    write_text_atomic(Path(folder) / RESOLVED_NAME, yaml.safe_dump(arguments, sort_keys=True, allow_unicode=True))


def save_checkpoint(
    trainer: Trainer,
    folder: str,
    config: ProtectorConfig,
    arguments: dict[str, Any],
    base_name: str,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Write what was trained: weights (safetensors), `protector_config.json` and `train_config.yaml`."""
    if save_trained(trainer, folder, base_name, tokenizer) is not None:
        config.save(folder)
        save_arguments(folder, arguments)


def parse_by_source(text: str, flag: str, sources: Collection[str] | None = None) -> dict[str, float]:
    """Read `SOURCE=NUMBER,SOURCE=NUMBER`.

    Args:
        text: What was given.
        flag: The option, for messages.
        sources: Names that sources have; another one is warned of, for it changes nothing.

    Example:
        >>> parse_by_source("hh_harmless_pairs=0.2,other=1", "--loss-weights")
        {'hh_harmless_pairs': 0.2, 'other': 1.0}
    """
    values = {}
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, number = item.rpartition("=")
        try:
            values[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"{flag} has {item!r}; write SOURCE=NUMBER, separated by commas")
    if unknown := [name for name in values if sources is not None and name not in sources]:
        known = ", ".join(sources or ())
        logger.warning("%s names %s, which is no source and changes nothing; sources are %s", flag, unknown[0], known)
    return values
