"""Opening a detector or detoxifier checkpoint: adapter or merged model, local, from the hub, or embedded."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.model.identity import Checkpoint, identify_checkpoint
from llava.protector.config import ProtectorConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from llava.model.backbone import Backbone
    from llava.model.options import LoadOptions

logger = logging.getLogger(__name__)

TASK_TYPES = {"detector": "SEQ_CLS", "detoxifier": "CAUSAL_LM"}


@dataclass(frozen=True)
class ProtectorCheckpoint:
    """Where the parts of a detector or detoxifier lie."""

    folder: Path
    """The checkpoint itself."""
    base: str
    """Folder of an adapter's base, a language model or a LLaVA; of a merged model the folder itself."""
    adapter: Path | None
    """The adapter folder; None for a merged model."""
    config: ProtectorConfig
    """How the checkpoint is used."""

    @property
    def model(self) -> str:
        """Where the transformer is loaded from: the base; of a LLaVA its language model, which is written out once."""
        from llava.model.language_model import language_model_folder

        return str(language_model_folder(Path(self.base))) if self.adapter else self.base

    @property
    def described(self) -> str:
        """Where the transformer's config and tokenizer are: the base, or the HF-native form of a LLaVA."""
        from llava.model.files.model import read_model_config
        from llava.model.language_model import is_vision_language
        from llava.model.loading import native_source

        if self.adapter is None or not is_vision_language(read_model_config(Path(self.base))):
            return self.base
        return native_source(self.base)


BASE_FLAGS = {"detector": "--detector-base", "detoxifier": "--detoxifier-base"}
"""What gives an adapter another base on the command line; in Python it is `base=`."""


def identify_part(kind: str, path_or_id: str, base: str | None = None) -> Checkpoint:
    """Describe a detector or detoxifier; with a base of its own it is another one.

    Args:
        kind: `detector` or `detoxifier`.
        path_or_id: `embedded`, a folder, or a hub id.
        base: Base model to use with an adapter instead of the one that it names.
    """
    from llava.model.embedded.stack import resolve_adapter, resolve_base_name

    found = identify_checkpoint(path_or_id, resolve_adapter(kind, path_or_id))
    if base is None:
        return found
    below = identify_checkpoint(base, resolve_base_name(base))
    digest = hashlib.sha256(f"{found.key}\0{below.key}".encode()).hexdigest()
    return Checkpoint(found.name, found.path, digest)


def open_checkpoint(kind: str, path_or_id: str, base: str | None = None) -> ProtectorCheckpoint:
    """Find the parts of a checkpoint without loading its weights.

    Args:
        kind: `detector` or `detoxifier`.
        path_or_id: `embedded`, a folder, or a hub id.
        base: Base model to use with an adapter instead of the one that it names.

    Raises:
        InputError: When the folder is missing, or holds something else.
    """
    from llava.model.adapters import is_adapter, read_adapter_config
    from llava.model.embedded.stack import resolve_adapter, resolve_base_name
    from llava.model.files.model import check_model_files
    from llava.model.hub import fetch

    folder = fetch(resolve_adapter(kind, path_or_id), kind, "check the path or the hub id")
    if not is_adapter(folder):
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{kind} {folder} has neither adapter_config.json nor config.json; give a checkpoint folder"
            )
        config = ProtectorConfig.load(folder, kind)
        if base is not None:
            raise InputError(f"{kind} {folder} is a merged model and takes no base; leave the base out")
        check_model_files(folder, kind)
        return ProtectorCheckpoint(folder, str(folder), None, config)
    config = ProtectorConfig.load(folder, kind)
    adapter = read_adapter_config(folder)
    task = adapter["task_type"]
    if task not in (TASK_TYPES[kind], None):
        raise InputError(f"adapter {folder} is of task {task}, a {kind} is {TASK_TYPES[kind]}; give a {kind} adapter")
    named = base or config.base_model or adapter["base_model_name_or_path"]
    if not named:
        raise InputError(f"adapter {folder} does not say which base it belongs to; name it by {BASE_FLAGS[kind]}")
    remedy = f"name the base by {BASE_FLAGS[kind]}"
    model = fetch(resolve_base_name(named), f"base model of {kind} {folder}:", remedy)
    check_model_files(model, f"base model of {kind} {folder}:")
    return ProtectorCheckpoint(folder, str(model), folder, config)


def check_checkpoint(kind: str, path_or_id: str, base: str | None = None) -> None:
    """Check, in seconds and without loading the base's weights, that a checkpoint can be used.

    The base is built without memory for its weights, and the adapter's tensors are held against it. Long runs call this
    before they write anything.

    Args:
        kind: `detector` or `detoxifier`.
        path_or_id: `embedded`, a folder, or a hub id.
        base: Base model to use with an adapter instead of the one that it names.

    Raises:
        InputError: When the checkpoint is missing, damaged, of the other kind, or belongs to another base.
    """
    from llava.model.adapters import check_adapter

    checkpoint = open_checkpoint(kind, path_or_id, base)
    load_checkpoint_tokenizer(checkpoint)
    network = build_network_without_weights(kind, checkpoint)
    if checkpoint.adapter:
        check_adapter(network, checkpoint.adapter, checkpoint.base)
    elif kind == "detector":
        check_saved_head(network, checkpoint.folder)


def build_network_without_weights(kind: str, checkpoint: ProtectorCheckpoint) -> torch.nn.Module:
    """Return the network of a checkpoint on the `meta` device, without an adapter.

    Raises:
        InputError: When its config describes none.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from llava.model.failures import explain_loading
    from llava.model.quiet import quiet_transformers
    from llava.protector.classifier import HarmClassifier

    what = f"{kind} {checkpoint.folder}: the model {checkpoint.base}"
    with quiet_transformers(), explain_loading(what, "check its config.json"), torch.device("meta"):
        config = read_network_config(kind, checkpoint)
        if kind == "detector":
            return HarmClassifier(AutoModelForSequenceClassification.from_config(config))
        network: torch.nn.Module = AutoModelForCausalLM.from_config(config)
        return network


def read_network_config(kind: str, checkpoint: ProtectorCheckpoint) -> Any:
    """Return the config of a checkpoint's network, as it is without an adapter.

    Raises:
        InputError: When it describes none.
    """
    from llava.model.backbone import read_text_config
    from llava.protector.classifier import read_classifier_config

    if kind == "detector":
        return read_classifier_config(
            checkpoint.described, num_layers=checkpoint.config.num_layers, with_head=checkpoint.adapter is None
        )
    return read_text_config(Path(checkpoint.described))


def share_network(kind: str, checkpoint: ProtectorCheckpoint, offered: Backbone | None, options: LoadOptions) -> Any:
    """Return a view of a model in memory as the network below an adapter; None where it has to be loaded.

    Args:
        kind: `detector` or `detoxifier`.
        checkpoint: The checkpoint.
        offered: What it may stand on, or must; None: nothing.
        options: How it would be loaded.

    Raises:
        SharingError: When the base must be shared and is another, or is asked for in other numbers.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from llava.model.backbone import SharingError

    if offered is None:
        return None
    try:
        if checkpoint.adapter is None:
            raise SharingError(
                f"{kind} {checkpoint.folder} is a merged model with weights of its own; give its adapter"
            )
        auto = AutoModelForSequenceClassification if kind == "detector" else AutoModelForCausalLM
        offered.check_numbers(options)
        return offered.build_network(auto, read_network_config(kind, checkpoint), Path(checkpoint.described))
    except SharingError as error:
        if not offered.required:
            logger.info("%s %s gets a model of its own: %s", kind, checkpoint.folder, error)
            return None
        raise SharingError(
            f"{kind} {checkpoint.folder} cannot share the model in memory: {error}; leave --share-backbone out "
            "(in Python backbone=)"
        ) from None


def check_saved_head(network: torch.nn.Module, folder: Path) -> None:
    """Check that the weight files of a merged detector hold its head, by their headers.

    Raises:
        InputError: When it is missing or of another shape.
    """
    from llava.model.files.tensors import open_tensors, weight_files

    wanted = tuple(network.get_parameter("score.weight").shape)
    for file in weight_files(folder):
        opened = open_tensors(file)
        if "score.weight" in opened.keys:
            if opened.shape("score.weight") != wanted:
                found = list(opened.shape("score.weight"))[:8]
                raise InputError(
                    f"detector {folder}: its head score.weight has shape {found}, not {list(wanted)}; export it again"
                )
            return
    raise InputError(f"detector {folder} lacks its head, the weights score.weight; it is no trained detector")


def load_checkpoint_tokenizer(
    checkpoint: ProtectorCheckpoint, loaded: dict[Any, PreTrainedTokenizerFast] | None = None
) -> PreTrainedTokenizerFast:
    """Load the checkpoint's tokenizer: its own where it ships one, else the base's.

    Args:
        checkpoint: The checkpoint.
        loaded: Those of other parts on the same backbone, by their key; one that is the same is not loaded again.

    Raises:
        InputError: When there is no usable fast tokenizer.
    """
    from llava.model.adapter_check import count_embedding_rows
    from llava.model.tokenizers import count_rows, load_tokenizer

    own = (checkpoint.folder / "tokenizer_config.json").is_file()
    rows = count_embedding_rows(checkpoint.adapter) if checkpoint.adapter else None
    rows = rows if rows is not None else count_rows(Path(checkpoint.described))
    key = str(checkpoint.folder) if own else checkpoint.described, rows
    loaded = {} if loaded is None else loaded
    if key not in loaded:
        loaded[key] = load_tokenizer(*key)
    return loaded[key]
