"""The network of the harm detector: a causal LM's transformer, pooled, with a one-logit head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    Cache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from llava.errors import InputError
from llava.model.answering.prompt_cache import CACHE
from llava.model.failures import explain_loading
from llava.model.quiet import quiet_transformers
from llava.protector.scoring.stretches import pool_stretches
from llava.protector.text import Window


class HarmClassifier(nn.Module):
    """One logit for a text, from the pooled last hidden states of a causal LM (arXiv 2401.02906, section 4.1).

    The modules carry the names of the Hugging Face sequence classifier (`model` and `score` for the Llama family), so
    adapters of the released detectors fit as they are, and a merged model can be saved as that class. It differs in
    pooling: by the attention mask rather than by looking for pad tokens (pad is eos in the released checkpoints, and a
    response may contain eos), and with the mean over all tokens, or over those of the response, as a choice.
    """

    def __init__(
        self, classifier: PreTrainedModel, pooling: str = "last", stretches: Sequence[int] = (), margin: float = 0.0
    ):
        """Take backbone and head from a Hugging Face `*ForSequenceClassification` with one label.

        Args:
            classifier: The classifier.
            pooling: `last`, `mean` or `mean_response`, see `ProtectorConfig`.
            stretches: With `mean_response`, tokens of the stretches of which the highest counts; see
                `llava/protector/scoring/stretches.py`.
            margin: What is taken off the logit of a stretch.
        """
        super().__init__()
        self.config = classifier.config
        self.pooling = pooling
        self.stretches = tuple(stretches)
        self.margin = margin
        # FSDP wraps these layers one by one; without their names the whole network would be a single unit.
        self._no_split_modules = classifier._no_split_modules
        self.backbone_name: str = classifier.base_model_prefix
        setattr(self, self.backbone_name, classifier.base_model)
        self.score = classifier.score

    @property
    def backbone(self) -> PreTrainedModel:
        """The transformer without its head."""
        return getattr(self, self.backbone_name)

    @property
    def device(self) -> torch.device:
        """Device of the head, which is where the logits come from."""
        return next(self.score.parameters()).device

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        response_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Compute the logits.

        Args:
            input_ids: Token ids, int64, (B, T), padded on the right.
            attention_mask: 1 for tokens, 0 for padding, (B, T); None means no padding.
            response_mask: 1 for the response's tokens, (B, T); needed by `mean_response` pooling alone, where None
                means that all tokens are the response's.

        Returns:
            `logits`, float, (B, 1). What a positive logit means is the checkpoint's `positive_label`.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden = self.read(input_ids, attention_mask)  # (B, T, H)
        return SequenceClassifierOutput(logits=self.decide(hidden, attention_mask, response_mask))

    def read(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        positions: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Return the last hidden states in the head's type, (B, T, H).

        Args:
            input_ids: Token ids, int64, (B, T).
            attention_mask: 1 for tokens, (B, P + T): of what the cache holds, then of `input_ids`.
            positions: Positions of the tokens, (B, T), where a cache has rows of several lengths.
            cache: What the transformer keeps of the P tokens before; it grows by these.
        """
        more: dict[str, Any] = {} if positions is None else {"position_ids": positions}
        if cache is not None:
            more[CACHE] = cache
        hidden: torch.Tensor = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=cache is not None, **more
        ).last_hidden_state
        return self.cast(hidden)

    def decide(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, response_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits, (B, 1), of hidden states (B, T, H); the masks are those of `forward`."""
        if self.stretches:
            mask = attention_mask if response_mask is None else response_mask
            token_logits = self.score(hidden)[..., 0].float()  # (B, T)
            return pool_stretches(token_logits, mask, self.stretches, self.margin).unsqueeze(1)
        return self.score(self.pool(hidden, attention_mask, response_mask)).float()

    def cast(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return hidden states in the head's type."""
        head = self.score.modules_to_save["default"] if hasattr(self.score, "modules_to_save") else self.score
        return hidden.to(head.weight.dtype)

    def score_tokens(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the head's logit at every token, (B, T); with mean pooling a response's logit is their mean."""
        return self.score(self.read(input_ids, attention_mask))[..., 0].float()

    def score_more_tokens(self, input_ids: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Return the head's logit at every token of a text's next part.

        Args:
            input_ids: The part, int64, (1, T).
            cache: What the transformer keeps of the text before it; it grows by this part.

        Returns:
            Logits, (1, T), those of `score_tokens` for the whole text but for rounding.
        """
        hidden: torch.Tensor = self.backbone(input_ids=input_ids, use_cache=True, **{CACHE: cache}).last_hidden_state
        return self.score(self.cast(hidden))[..., 0].float()

    def pool(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, response_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Reduce (B, T, H) hidden states to (B, H), looking at unmasked positions only."""
        if self.pooling != "last":
            mask = attention_mask if self.pooling == "mean" or response_mask is None else response_mask
            weights = mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
            return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)  # (T,)
        last = (attention_mask * positions).argmax(dim=1)  # (B,)
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding; PEFT and gradient checkpointing ask for it."""
        return self.backbone.get_input_embeddings()

    def resize_token_embeddings(self, rows: int, mean_resizing: bool = True) -> nn.Module:
        """Give the token embedding another number of rows, for an adapter that brings its own."""
        return self.backbone.resize_token_embeddings(rows, mean_resizing=mean_resizing)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Trade compute for memory in the transformer's backward pass."""
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Undo `gradient_checkpointing_enable`."""
        self.backbone.gradient_checkpointing_disable()

    def enable_input_require_grads(self) -> None:
        """Let gradients flow through frozen embeddings, as checkpointing with adapters needs."""
        self.backbone.enable_input_require_grads()


def pad_windows(windows: Sequence[Window], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad windows on the right into what `HarmClassifier` reads.

    Returns:
        `input_ids`, `attention_mask` and `response_mask`, int64, (W, T).

    Example:
        >>> batch = pad_windows([Window([5, 6, 7], head=1), Window([8])], pad_token_id=0)
        >>> batch["input_ids"].tolist(), batch["response_mask"].tolist()
        ([[5, 6, 7], [8, 0, 0]], [[0, 1, 1], [1, 0, 0]])
    """
    input_ids = torch.full((len(windows), max(len(ids) for ids, _ in windows)), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    response_mask = torch.zeros_like(input_ids)
    for i, (ids, head) in enumerate(windows):
        input_ids[i, : len(ids)] = torch.tensor(ids)
        attention_mask[i, : len(ids)] = 1
        response_mask[i, head : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "response_mask": response_mask}


def load_sequence_classifier(
    base: str,
    *,
    num_layers: int | None = None,
    dtype: torch.dtype = torch.float32,
    with_head: bool = False,
    **options: Any,
) -> PreTrainedModel:
    """Load any causal LM, or a saved sequence classifier, as a Hugging Face one-label sequence classifier.

    Args:
        base: Hub id or folder.
        num_layers: Keep only the first layers; None keeps all. Middle layers carry more of the harm signal than the
            last ones, and cost less.
        dtype: Type of the weights.
        with_head: Whether the checkpoint must hold a trained head (a merged detector); otherwise a fresh one is made.
        options: Passed on to `from_pretrained` (quantization, device map, …).

    Raises:
        InputError: When `base` is no checkpoint, has another head, or lacks weights.
    """
    trust = bool(options.get("trust_remote_code", False))
    config = read_classifier_config(base, num_layers=num_layers, with_head=with_head, trust_remote_code=trust)
    # What is missing is checked below; the layers left out on purpose need no warning.
    with quiet_transformers(), explain_loading(f"text classifier {base}", "check the checkpoint"):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            base, config=config, dtype=dtype, output_loading_info=True, **options
        )
    missing = sorted(key for key in info["missing_keys"] if with_head or not key.startswith("score."))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{base} lacks the weights {', '.join(missing[:3])}{more}; it is truncated or no detector")
    return model


def read_classifier_config(
    base: str, *, num_layers: int | None = None, with_head: bool = False, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Return the config that `load_sequence_classifier` loads with; the arguments are the same.

    Raises:
        InputError: When `base` is no checkpoint, or has another head.
    """
    with explain_loading(f"text classifier {base}", "check the checkpoint"):
        config = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code).get_text_config(decoder=True)
        labels = config.num_labels
    if with_head and labels != 1:
        raise InputError(f"{base} has {labels} labels; a harm detector has one logit")
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and not trust_remote_code:
        raise InputError(f"{base} ({config.model_type}) is no language model that can classify; check the checkpoint")
    config.num_labels = 1
    if num_layers is not None:
        config.num_hidden_layers = min(num_layers, config.num_hidden_layers)
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: config.num_hidden_layers]
    return config
