"""The detoxifier: rewrites a harmful response into a harmless one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.model.options import LoadOptions, collect_options
from llava.protector.config import ProtectorConfig
from llava.protector.text import encode_detoxifier_prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from llava.model.answering.generation import MultimodalModel
    from llava.model.backbone import Backbone

MAX_NEW_TOKENS = 256
"""Longest rewrite unless told otherwise, in tokens."""


REWRITE_BATCH_SIZE = 8
"""Rewrites at a time unless told otherwise."""


class Detoxifier:
    """Rewrites responses with a causal LM trained on (question, harmful, harmless) triples (paper, section 4.2).

    Rewriting changes nothing, so several threads may use one detoxifier at once.

    Example:
        detoxifier = Detoxifier.from_pretrained("embedded")
        detoxifier.rewrite(["How do I pick a lock?"], ["First, take a thin piece of wire."])
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        config: ProtectorConfig,
        name: str = "detoxifier",
    ):
        """Join a causal LM, its tokenizer and the config that says how they are used."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.config = config
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        options: LoadOptions | None = None,
        *,
        backbone: MultimodalModel | Backbone | None = None,
        **keywords: Any,
    ) -> Detoxifier:
        """Load a detoxifier: `embedded`, a PEFT adapter or a merged causal LM, by folder or hub id.

        Args:
            path: The checkpoint.
            options: How it is loaded; None stands for the defaults.
            backbone: A multimodal model in memory whose language model is the adapter's base: the detoxifier uses its
                weights, in its numbers and on its device, instead of a copy of them.
            keywords: Fields of `LoadOptions` by name, such as `device`, `dtype` and `base`; they win over `options`.

        Raises:
            InputError: When the checkpoint is missing, damaged, of another kind, or belongs to another base.
        """
        from llava.model.adapters import merge_into, put_beside
        from llava.model.backbone import as_backbone
        from llava.protector.checkpoints import load_checkpoint_tokenizer, open_checkpoint, share_network

        chosen = collect_options(options, keywords)
        checkpoint = open_checkpoint("detoxifier", str(path), chosen.base)
        offered = as_backbone(backbone)
        model = shared = share_network("detoxifier", checkpoint, offered, chosen)
        if shared is None:
            model = load_causal_lm(checkpoint.model, **chosen.build_arguments())
        if checkpoint.adapter:
            # Shared and quantised weights must stay what they are: the adapter's product is added beside them.
            add = put_beside if shared is not None or chosen.is_quantised else merge_into
            model = add(model, checkpoint.adapter, checkpoint.base)
        placed = model if shared is not None else chosen.place(model)
        return cls(
            placed,
            load_checkpoint_tokenizer(checkpoint, offered.tokenizers if offered else None),
            checkpoint.config,
            name=str(path),
        )

    def rewrite(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        batch_size: int = REWRITE_BATCH_SIZE,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> list[str]:
        """Rewrite every response, greedily; a rewrite ends before it repeats itself.

        Args:
            prompts: The questions, one for each response.
            responses: The responses to make harmless. One that does not fit the window is cut at its end.
            batch_size: Responses a forward pass.
            max_new_tokens: Longest rewrite, in tokens.

        Returns:
            The rewrites, in order, without surrounding blanks; an empty string where the model wrote nothing.

        Raises:
            ValueError: When prompts and responses differ in number.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses; give one each")
        from llava.model.tokenizers import hold_tokenizer

        room = self._prompt_room(max_new_tokens)
        with hold_tokenizer(self.tokenizer):
            rows = [
                encode_detoxifier_prompt(self.tokenizer, self.config, prompt, response, room)[0]
                for prompt, response in zip(prompts, responses, strict=True)
            ]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        rewrites = [""] * len(rows)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for i, text in zip(batch, self._generate([rows[i] for i in batch], max_new_tokens), strict=True):
                rewrites[i] = text
        return rewrites

    def _prompt_room(self, max_new_tokens: int) -> int:
        """Return how many tokens the prompt may take: the trained window, within the model's context."""
        context = getattr(self.model.config, "max_position_embeddings", None) or self.config.max_length
        return max(16, min(self.config.max_length, context - max_new_tokens))

    def _generate(self, rows: list[list[int]], max_new_tokens: int) -> list[str]:
        """Write the continuation of each row of token ids."""
        import torch
        from transformers import GenerationConfig

        from llava.model.answering.decoding import decode_rows
        from llava.model.tokenizers import hold_tokenizer
        from llava.protector.repetition import StopAtRepetition, whole_sentences, without_repetition

        pad, eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        width = max(len(ids) for ids in rows)
        input_ids = torch.full((len(rows), width), pad)  # (B, T), padded on the left
        attention_mask = torch.zeros_like(input_ids)
        for i, ids in enumerate(rows):
            input_ids[i, width - len(ids) :] = torch.tensor(ids)
            attention_mask[i, width - len(ids) :] = 1
        inputs = {"input_ids": input_ids.to(self.model.device), "attention_mask": attention_mask.to(self.model.device)}
        room = torch.full((len(rows),), max_new_tokens)
        # A checkpoint's stored defaults (temperature, repetition penalty) must not reach a greedy rewrite.
        defaults = GenerationConfig(pad_token_id=pad, eos_token_id=eos)
        with torch.inference_mode():
            rewrites = decode_rows(
                self.model, inputs, room, ends=[eos], ends_row=[StopAtRepetition(width)], defaults=defaults
            )
        texts = []
        for written in rewrites:
            kept, repeated = without_repetition([token for token in written if token != pad])
            with hold_tokenizer(self.tokenizer):
                text = str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()
            texts.append(whole_sentences(text) if repeated else text)
        return texts


def load_causal_lm(path: str, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """Load a causal LM, saying in one line what is wrong when it cannot be.

    Raises:
        InputError: When the folder is no causal LM or lacks weights.
    """
    from transformers import AutoModelForCausalLM

    from llava.model.answering.decoding import drop_contradictions
    from llava.model.failures import explain_loading
    from llava.model.quiet import quiet_transformers

    with quiet_transformers(), explain_loading(f"causal LM {path}", "check the checkpoint"):
        model, info = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True, **options)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise InputError(f"{path} lacks the weights {', '.join(missing[:3])}; it is truncated or of another kind")
    drop_contradictions(model)
    return model
