"""One language model in memory, adapters on it: what guards a model may use that model's own weights.

A detector and a detoxifier are LoRA adapters; each beside a copy of its base makes three language models of one. Where
the base is the language model inside the multimodal model, each gets a view of it instead (`llava/model/views.py`):
modules of its own, around the same weights, with the adapter's products beside them. No switch is thrown on anything
shared, so one thread may score and another rewrite while the model itself writes an answer.
"""

from __future__ import annotations

import copy
import logging
import threading
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from llava.errors import InputError
from llava.model.answering.decoding import drop_contradictions
from llava.model.answering.generation import MultimodalModel
from llava.model.failures import explain_loading
from llava.model.files.comparison import StoredWeights, find_difference
from llava.model.options import LoadOptions
from llava.model.quiet import quiet_transformers
from llava.model.views import view_model

WITHOUT_EFFECT = frozenset(
    {"attention_dropout", "initializer_range", "use_cache", "pretraining_tp"}
    | {"bos_token_id", "eos_token_id", "pad_token_id"}
)
"""Fields of a config that change nothing in a forward pass without gradients."""
OF_ITS_OWN = frozenset({"vocab_size", "num_hidden_layers", "layer_types", "tie_word_embeddings"})
"""Fields in which a view may differ from the whole: rows of the embeddings and layers are cut, ties are compared."""


logger = logging.getLogger(__name__)


class SharingError(InputError):
    """The language model in memory cannot stand under an adapter: it is another, or not held in the same numbers."""


class Backbone:
    """The language model inside a multimodal model in memory, as the base of adapters.

    Example:
        mllm = load_mllm("embedded")
        Protector.from_pretrained("embedded", "embedded", backbone=mllm)  # makes one of these
    """

    def __init__(self, mllm: MultimodalModel, *, required: bool = True):
        """Take the language model out of a multimodal one; nothing is copied.

        Args:
            mllm: The model, on its device. To move it or to change its weights later is to change what stands on it.
            required: Whether an adapter of another base is refused; otherwise it gets a model of its own.
        """
        self.name = mllm.name
        self.required = required
        self.model: Any = mllm.model
        self.source: str | None = mllm.source
        find = getattr(self.model, "get_decoder", None)
        self.body: Any = find() if find else self.model
        self.tokenizers: dict[Any, Any] = {}
        """What is used with it, by where it comes from: a tokenizer takes as much memory as an adapter."""
        self.proven: set[tuple[Path, str]] = set()
        self.lock = threading.Lock()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.body.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that it computes in."""
        return next(each.dtype for each in self.body.parameters() if each.is_floating_point())

    @property
    def is_quantised(self) -> bool:
        """Whether some of its weights are held in fewer bits than they are computed in."""
        return any(not each.is_floating_point() for each in self.body.parameters())

    def build_network(self, kind: Any, config: PreTrainedConfig, base: Path) -> Any:
        """Return a network around the shared weights, to be changed at will, once they are known to be the base's.

        Args:
            kind: What it is: `AutoModelForCausalLM`, or `AutoModelForSequenceClassification` for one that gets a head
                of its own, which is fresh.
            config: The base's config. With fewer layers than the language model has the network has the first of them.
            base: Folder of the base, a language model or an HF-native vision-language model with it inside.

        Returns:
            A model of transformers, in evaluation mode; every weight but the fresh head lies in the shared memory.

        Raises:
            SharingError: Naming what differs.
        """
        config = copy.deepcopy(config)
        config._attn_implementation = self.body.config._attn_implementation
        with quiet_transformers(), explain_loading(f"base {base}", "check its config.json"), torch.device("meta"):
            network = kind.from_config(config)
        inner = network.base_model
        if type(inner) is not type(self.body):
            raise self.refuse(f"is a {type(self.body).__name__}, not a {type(inner).__name__}")
        self.check_config(config)
        body, head = view_model(self.body), None
        body.config = config
        if network.get_output_embeddings() is not None:
            if (own := self.model.get_output_embeddings()) is None:
                raise self.refuse("has no output layer")
            head = view_model(own)
        keep_layers(body, self.body.config.num_hidden_layers, config.num_hidden_layers)
        if not share_weights(body, head, config.vocab_size):
            raise self.refuse(f"has fewer than {config.vocab_size} tokens")
        setattr(network, network.base_model_prefix, body)
        if head is not None:
            network.set_output_embeddings(head)
        shared = [*network.named_parameters(remove_duplicate=False), *list_stored_buffers(network)]
        if hasattr(network, "score"):
            network.score.to_empty(device=self.device).to(self.dtype)
            nn.init.zeros_(network.score.weight)
            shared = [(name, tensor) for name, tensor in shared if not name.startswith("score.")]
        if strange := [name for name, tensor in shared if tensor.is_meta]:
            raise self.refuse(f"has no {strange[0]}")
        self.prove(shared, base)
        drop_contradictions(network)
        return network.eval()

    def check_numbers(self, options: LoadOptions) -> None:
        """Hold the way in which the language model is in memory against that in which a base is asked for.

        Raises:
            SharingError: When it is on another device, or in other numbers and nothing says that it must be shared. One
                that must be is taken as it is, with a warning.
        """
        if options.device is not None and not is_same_device(options.pick_device(), self.device):
            raise SharingError(f"{self.name} is on {self.device}, not on {options.device}")
        if options.is_quantised and not self.is_quantised:
            raise SharingError(f"{self.name} is not quantised")
        wanted = self.dtype if options.dtype == "auto" and self.required else options.pick_dtype()
        if self.is_quantised and not options.is_quantised:
            difference = "holds its weights quantised"
        elif wanted != self.dtype:
            difference = f"is in {self.dtype}, not in {wanted}".replace("torch.", "")
        else:
            return
        if not self.required:
            raise SharingError(f"{self.name} {difference}")
        logger.warning("%s %s: scores and rewrites follow it; calibrate the threshold with it", self.name, difference)

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse a base whose config means another forward pass.

        Raises:
            SharingError: Naming the first field that differs.
        """
        own = self.body.config
        common = PreTrainedConfig().to_dict().keys() | WITHOUT_EFFECT | OF_ITS_OWN
        for name in sorted(type(own)().to_dict().keys() - common):
            if getattr(own, name, None) != getattr(config, name, None):
                raise self.refuse(f"has {name} {getattr(own, name, None)}, not {getattr(config, name, None)}")
        kept = config.num_hidden_layers
        if kept > own.num_hidden_layers:
            raise self.refuse(f"has {own.num_hidden_layers} layers, not {kept}")
        kinds = [getattr(each, "layer_types", None) or [] for each in (own, config)]
        if kinds[0][:kept] != kinds[1][:kept]:
            raise self.refuse("has layers of other kinds")

    def prove(self, tensors: list[tuple[str, torch.Tensor]], base: Path) -> None:
        """Hold the shared weights against the base's files, each once.

        Raises:
            SharingError: Naming the first that differs.
        """
        with self.lock:
            left = [(name, tensor) for name, tensor in tensors if (base, name) not in self.proven]
            own = StoredWeights(Path(self.source)) if self.source and Path(self.source).is_dir() else None
            if (name := find_difference(left, StoredWeights(base), own)) is not None:
                raise self.refuse(f"differs from it in {name}")
            self.proven |= {(base, name) for name, _ in left}

    def refuse(self, reason: str) -> SharingError:
        """Return the error for a base that is not this language model."""
        return SharingError(f"its base is not the language model of {self.name}, which {reason}")


def as_backbone(model: MultimodalModel | Backbone | None) -> Backbone | None:
    """Return what a loader was given as `backbone`; a model itself must be shared."""
    return Backbone(model) if isinstance(model, MultimodalModel) else model


def offer_backbone(model: Any, share: bool | None) -> Backbone | None:
    """Return what the guard of a model may stand on.

    Args:
        model: The model that is guarded; one on a server has nothing to offer.
        share: True: the guard must share its language model; None: where that is the guard's base; False: it must not.

    Raises:
        InputError: When it must, and the model is not in this process.
    """
    if isinstance(model, MultimodalModel) and share is not False:
        return Backbone(model, required=share is True)
    if share:
        raise InputError("--share-backbone needs the model in this process; leave it out")
    return None


def is_same_device(one: torch.device, other: torch.device) -> bool:
    """Tell whether two devices are one; without an index it is the first.

    Example:
        >>> is_same_device(torch.device("cuda"), torch.device("cuda:0"))
        True
    """
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def read_text_config(folder: Path) -> PreTrainedConfig:
    """Return the config of a language model, or of that in a vision-language model."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder).get_text_config(decoder=True)
    return config


def keep_layers(body: nn.Module, whole: int, kept: int) -> None:
    """Leave the first layers of a view in it."""
    if kept == whole:
        return
    for module in list(body.modules()):
        for name, child in module._modules.items():
            if isinstance(child, nn.ModuleList) and len(child) == whole:
                module._modules[name] = child[:kept]


def share_weights(body: Any, head: Any, rows: int) -> bool:
    """Give a view parameters of its own in the same memory: PEFT marks parameters, and must not mark the model's.

    The token embeddings, and the output layer, get the base's rows; those that a multimodal model added lie behind.

    Args:
        body: View of the language model.
        head: View of its output layer; None where there is none.
        rows: How many tokens the base knows.

    Returns:
        False when there are fewer rows than that.
    """
    aliases: dict[int, nn.Parameter] = {}
    layers = [body.get_input_embeddings(), *([head] if head is not None else [])]
    for layer in layers:
        for parameter in layer._parameters.values():
            if parameter is None:
                continue
            if not parameter.is_floating_point() and getattr(layer, "out_features", None) == rows:
                continue  # a quantised one cannot be cut
            if not parameter.is_floating_point() or parameter.shape[0] < rows:
                return False
            aliases[id(parameter)] = nn.Parameter(parameter.detach()[:rows], requires_grad=False)
        setattr(layer, "num_embeddings" if layer is layers[0] else "out_features", rows)
    for module in (*body.modules(), *layers[1:]):
        table = dict(module._parameters)
        for name, parameter in table.items():
            # A quantised weight is of a class of its own, which holds its scales; nothing marks it.
            if parameter is not None and type(parameter) is nn.Parameter and parameter.is_floating_point():
                if id(parameter) not in aliases:
                    aliases[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
                table[name] = aliases[id(parameter)]
        vars(module)["_parameters"] = table
    return True


def list_stored_buffers(network: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the buffers that a checkpoint holds, by name; those that follow from the config are left out."""
    return [
        (f"{name}.{key}" if name else key, buffer)
        for name, module in network.named_modules()
        for key, buffer in module._buffers.items()
        if buffer is not None and key not in module._non_persistent_buffers_set
    ]
