"""Loading any vision-language model that transformers knows, and LLaVA checkpoints in their original format."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from llava.errors import InputError
from llava.fields import Fields
from llava.files import expand_home, read_json
from llava.model.answering.decoding import drop_contradictions
from llava.model.answering.generation import MultimodalModel
from llava.model.embedded import reading_tower  # noqa: F401 - makes the type known to transformers
from llava.model.embedded.stack import DESCRIPTION_FILE, resolve_mllm
from llava.model.failures import describe_error, explain_loading
from llava.model.files.model import check_model_files, read_model_config
from llava.model.hub import fetch, locate
from llava.model.llava_checkpoints.adapter import KEPT_WHOLE, find_adapter, put_on
from llava.model.llava_checkpoints.convert import converted_folder
from llava.model.llava_checkpoints.format import is_original_config, recognise
from llava.model.llava_checkpoints.processor import check_picture_positions, complete_processor
from llava.model.llava_checkpoints.source import HUB_PATTERNS
from llava.model.options import LoadOptions, collect_options
from llava.model.quiet import quiet_transformers

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
BUFFERS = re.compile(r"(inv_freq|position_ids|num_batches_tracked)$")
"""Computed values that old checkpoints carry and nothing needs."""


def load_mllm(
    path_or_id: str | Path, options: LoadOptions | None = None, *, verbose: bool = False, **keywords: Any
) -> MultimodalModel:
    """Load a vision-language model.

    Args:
        path_or_id: Folder of a checkpoint, hub id, or `embedded` for the shipped stack.
        options: How it is loaded; None stands for the defaults.
        verbose: Let transformers print its warnings and progress bars.
        keywords: Fields of `LoadOptions` by name: `device`, `dtype`, `attn_implementation`, `load_in_8bit`,
            `load_in_4bit`, `trust_remote_code`, `base`, `vision_tower`. They win over `options`.

    Returns:
        The model with its processor, on the device, in evaluation mode.

    Raises:
        InputError: When there is no such model, it is not a vision-language model, its weights do not fit its config,
            or something that it needs is not installed.
    """
    name = str(path_or_id)
    chosen = collect_options(options, keywords)
    adapter = find_adapter(name, chosen.base)
    arguments = chosen.build_arguments(kept_whole=KEPT_WHOLE if adapter else None)
    source = native_source(
        adapter.base if adapter else name, base=None if adapter else chosen.base, vision_tower=chosen.vision_tower
    )
    processor = load_processor(source, name, trust_remote_code=chosen.trust_remote_code, verbose=verbose)
    model = load_network(source, name, arguments, verbose=verbose)
    if adapter:
        model = put_on(model, adapter, merge=not chosen.is_quantised)
    placed = chosen.place(model)
    return MultimodalModel(placed, processor, name=name, notes=_notes(source), source=None if adapter else source)


def load_processor(source: str, name: str, *, trust_remote_code: bool = False, verbose: bool = False) -> Any:
    """Load the processor of a model that `native_source` found; `name` is what the user calls it."""
    with quiet_transformers(verbose), _readable_errors(name):
        config = _check_kind(source, name, trust_remote_code)
    return load_processor_of(config, source, name, trust_remote_code=trust_remote_code, verbose=verbose)


def load_processor_of(
    config: Any, source: str, name: str, *, trust_remote_code: bool = False, verbose: bool = False
) -> Any:
    """Load the processor of a model whose config, which `load_processor` reads first, is known."""
    with quiet_transformers(verbose), _readable_errors(name):
        processor = _read_processor(source, name, trust_remote_code)
        complete_processor(processor, config)
    check_picture_positions(name, processor, config)
    return processor


def load_network(source: str, name: str, options: dict[str, Any], *, verbose: bool = False) -> Any:
    """Load a model's weights with the given options of `from_pretrained`, and check that they are whole."""
    with quiet_transformers(verbose), _readable_errors(name):
        # Shapes that do not fit are let through here because `check_weights` names them.
        model, report = AutoModelForImageTextToText.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    check_weights(name, report)
    drop_contradictions(model)
    return model


def native_source(path_or_id: str, *, base: str | None = None, vision_tower: str | None = None) -> str:
    """Return the folder or hub id to load: `embedded` is built, an original-format LLaVA converted, both once."""
    source = locate(resolve_mllm(path_or_id))
    folder = Path(source)
    if not folder.is_dir():
        remedy = "check the name or the connection"
        peeked = fetch(source, "model", remedy, ["config.json"])
        if not is_original_config(read_model_config(peeked)):
            return source
        folder = fetch(source, "model", remedy, HUB_PATTERNS)
    if not (folder / "config.json").is_file():
        raise InputError(f"model folder {path_or_id} has no config.json; give the folder of a whole model")
    check_model_files(folder)
    checkpoint = recognise(folder)
    if checkpoint is None:
        return source
    return str(converted_folder(checkpoint, base=base, vision_tower=vision_tower))


def check_weights(name: str, report: dict[str, Any]) -> None:
    """Refuse a model some of whose weights were not in the checkpoint, or the reverse.

    transformers only warns and runs on with random weights, which gives results that look like results.

    Args:
        name: The model, for the message.
        report: What `from_pretrained(..., output_loading_info=True)` says; tied weights are not among the missing.
    """
    problems = []
    for kind, label in (
        ("missing_keys", "missing"),
        ("mismatched_keys", "of another shape"),
        ("unexpected_keys", "unknown"),
    ):
        keys = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report.get(kind, ()))
        if keys := [key for key in keys if not BUFFERS.search(key)]:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            problems.append(f"{label}: {', '.join(keys[:3])}{more}")
    if problems:
        raise InputError(
            f"the weights of model {name} do not fit its config.json ({'; '.join(problems)}); "
            "the checkpoint is incomplete or of another model, fetch it again"
        )


@contextlib.contextmanager
def _readable_errors(name: str) -> Iterator[None]:
    """Turn what transformers raises for a bad checkpoint into one line."""
    from safetensors import SafetensorError

    is_folder = os.path.isdir(expand_home(name)) or name == "embedded"  # noqa: PTH112 - see `locate`
    with explain_loading(f"model {name}", "check its config.json"):
        try:
            yield
        except ImportError as error:
            package = "torchvision" if "torchvision" in str(error).lower() else getattr(error, "name", None)
            remedy = f"pip install {package}" if package else "install what the message names"
            raise InputError(
                f"model {name} needs a package that is not installed ({describe_error(error)}); {remedy}"
            ) from None
        except SafetensorError as error:
            raise InputError(
                f"the weights of model {name} are damaged ({describe_error(error)}); fetch them again"
            ) from None
        except OSError as error:
            reason = describe_error(error)
            if is_folder:
                raise InputError(f"model folder {name} cannot be loaded ({reason}); check its files") from None
            raise InputError(
                f"model {name} is neither a folder nor could it be fetched from the hub ({reason}); "
                "check the name or the connection"
            ) from None


def _check_kind(source: str, name: str, trust_remote_code: bool) -> Any:
    """Return the config of a model that takes pictures; refuse any other."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    remote = "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {})
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or (remote and trust_remote_code):
        return config
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(
            f"model {name} is a text-only language model ({config.model_type}); give a vision-language model, "
            "e.g. llava-hf/llava-1.5-7b-hf or embedded"
        )
    raise InputError(f"model {name} ({config.model_type}) is not a vision-language model that transformers knows")


def _read_processor(source: str, name: str, trust_remote_code: bool) -> Any:
    """Load the processor, refusing a model that comes without one (transformers would return a bare tokenizer).

    Pillow prepares the pictures wherever it can. transformers prefers torchvision where that happens to be installed,
    which rounds otherwise: pixels differ by a grey level, and answers would depend on it.
    """
    absent = InputError(
        f"model {name} has no processor (processor_config.json or preprocessor_config.json); fetch those files too"
    )
    folder = Path(source)
    if folder.is_dir() and not any((folder / file).is_file() for file in PROCESSOR_FILES):
        raise absent
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=trust_remote_code)
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise absent
    if getattr(processor.image_processor, "backend", None) == "torchvision":
        # Asked for here and not above, where the tokenizer would take the word for its own.
        processor.image_processor = AutoImageProcessor.from_pretrained(
            source, backend="pil", trust_remote_code=trust_remote_code
        )
    return processor


def _notes(source: str) -> list[str]:
    """Return the notes that a built model carries in its folder."""
    path = Path(source) / DESCRIPTION_FILE
    if not path.is_file():
        return []
    what = "model description"
    return Fields(read_json(path, what), f"{what} {path}", "delete that folder, it is built again").texts("notes", [])
