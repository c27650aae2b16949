"""Decode a batch of rows that end at different times, without paying for the ended ones until the last is done."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from llava.model.answering.prompt_cache import CACHE, add_cache
from llava.model.answering.states import EnoughReadError, StateTrace
from llava.model.views import view_model

KEEP_SHARE = 0.75
"""A batch is cut down to its unfinished rows once they are at most this part of it. Each cut costs about one step."""
LEAST_ROWS = 4
"""A batch of fewer rows is left alone: a step with one row costs nearly as much."""
RESUMABLE_INPUTS = frozenset({"input_ids", "attention_mask", "pixel_values", "image_sizes"})
"""Inputs of models that go on from token ids and the cache alone once the prompt, pictures included, is read. Others
keep something for each row beside the cache (M-RoPE offsets, cross-attention masks, token types)."""
RESUMABLE_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers whose cache can be cut by rows and gone on from; a recurrent state may begin anew."""
SPECIAL = (
    *("bos_token_id", "eos_token_id", "pad_token_id"),
    *("decoder_start_token_id", "forced_bos_token_id", "stop_strings"),
)
"""What a checkpoint's decoding defaults say about its tokens, whatever they say about sampling."""

EndOfRow = Callable[[torch.Tensor], torch.Tensor]
"""Tells from token ids (B, T) which rows have ended, (B,) bool."""


def special_tokens_of(defaults: GenerationConfig, **own: Any) -> GenerationConfig:
    """Return decoding defaults with nothing but the special tokens of others; `own` wins over them."""
    return GenerationConfig(**{name: getattr(defaults, name, None) for name in SPECIAL} | own)


def drop_contradictions(model: Any) -> None:
    """Cut a model's decoding defaults down to its special tokens where they contradict one another.

    Many old checkpoints have a temperature and do not sample. Some versions of transformers refuse to save that, and by
    then the training is over.
    """
    defaults = getattr(model, "generation_config", None)
    if defaults is None:
        return
    try:
        defaults.validate(strict=True)
    except ValueError:
        model.generation_config = special_tokens_of(defaults)


class RowProcessor(Protocol):
    """A logits processor that keeps something for each row."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return changed scores (B, V)."""

    def select(self, rows: Sequence[int]) -> RowProcessor:
        """Return the processor for some of the rows; what has been drawn for them stays drawn."""


class Watch(StoppingCriteria):
    """Notes which rows have ended, and ends the call when few enough are left to go on without the others.

    Everything stays on the device: a comparison on the host would make each step wait for it.

    Attributes:
        done: Which rows have ended, (B,) bool.
        lengths: Steps until a row ended, (B,) int64; what they are for rows that have not means nothing.
        steps: Steps so far.
        tokens: All tokens so far, (B, T).
    """

    def __init__(self, room: torch.Tensor, ends: Sequence[int], others: Sequence[EndOfRow], keep_share: float):
        self.room, self.others, self.keep_share = room, others, keep_share
        self.ends = torch.tensor(ends, dtype=torch.long, device=room.device)
        self.done = torch.zeros(len(room), dtype=torch.bool, device=room.device)
        self.closed = torch.zeros((), dtype=torch.bool, device=room.device)
        self.lengths = torch.zeros_like(room)
        self.steps = 0
        self.tokens = room.new_zeros(len(room), 0)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return which rows are to end now, (B,) bool."""
        self.steps += 1
        self.tokens = input_ids
        ended = torch.isin(input_ids[:, -1], self.ends) | (self.steps >= self.room)
        for has_ended in self.others:
            ended |= has_ended(input_ids)
        # On some devices transformers takes one step more and undoes it; what that step wrote must not count.
        news = ended & ~self.done & ~self.closed
        self.lengths = torch.where(news, self.steps, self.lengths)
        self.done |= news
        self.closed |= (~self.done).sum() <= self.keep_share * len(self.done)
        return self.done | self.closed


def decode_rows(
    model: Any,
    inputs: dict[str, torch.Tensor],
    room: torch.Tensor,
    *,
    ends: Sequence[int],
    ends_row: Sequence[EndOfRow] = (),
    processor: RowProcessor | None = None,
    defaults: GenerationConfig | None = None,
    trace: StateTrace | None = None,
    **options: Any,
) -> list[list[int]]:
    """Generate greedily for a batch, and go on with the unfinished rows alone as others end.

    `transformers` keeps every row until the last one has ended: where one answer is five times as long as the others,
    all are paid for at its length. Here rows that have ended leave the batch and its cache, several at a time.

    The model is not changed, so several threads may decode with it at once: the work is done on a view of it.

    Args:
        model: A model of `transformers` that generates.
        inputs: Its inputs: `input_ids` (B, T) padded on the left, `attention_mask`, pictures.
        room: Longest answer of each row in tokens, (B,) int64.
        ends: Tokens that end a row.
        ends_row: Further reasons for a row to end.
        processor: Changes the logits of every step.
        defaults: Decoding defaults that count instead of the model's own.
        trace: Keeps something of the states of every token that is written; None keeps nothing.
        options: Further arguments of `model.generate` (`tokenizer`, for stop strings).

    Returns:
        The token ids that were written for each row, end token included.
    """
    written: list[list[int]] = [[] for _ in room]
    rows = list(range(len(room)))
    longest = room.tolist()
    room = room.to(inputs["input_ids"].device)
    prunable = can_prune(model, inputs, options)
    view = view_model(model)
    if defaults is not None:
        view.generation_config = defaults
    state = inputs
    if prunable and view.generation_config.cache_implementation is None:
        state = add_cache(view, inputs)
    if trace is not None:
        # The step that reads the last token: nothing of it is needed above the layer that is looked at.
        trace.attach(view, max(longest))
        room = room + 1
    while True:
        watch = Watch(room, ends, ends_row, KEEP_SHARE if prunable and len(rows) >= LEAST_ROWS else 0.0)
        plan = GenerationConfig(
            max_new_tokens=int(room.max()), do_sample=False, num_beams=1, use_cache=True, return_dict_in_generate=True
        )
        output: Any = None
        watch.tokens = state["input_ids"]  # a call that only reads the last token ends before its first step
        try:
            output = view.generate(
                **state,
                **options,
                generation_config=plan,
                logits_processor=LogitsProcessorList([processor] if processor else []),
                stopping_criteria=StoppingCriteriaList([watch]),
            )
        except EnoughReadError:
            prunable = False  # every row that is left has been written and read to its end
        tokens = watch.tokens if output is None else output.sequences
        # A row that ends by stop string or by the end of the call is not noted, and is whole.
        lengths = torch.where(watch.done, watch.lengths, watch.steps).tolist()
        for row, answer, length in zip(rows, _answers(model, state["input_ids"], tokens), lengths, strict=True):
            written[row] += answer[:length]
        if trace is not None:
            trace.close_round(rows, lengths if output is not None else [length + 1 for length in lengths])
        going_on = (~watch.done).nonzero()[:, 0]
        if not prunable or not len(going_on):
            return [tokens[:most] for tokens, most in zip(written, longest, strict=True)]
        cache = getattr(output, CACHE)
        cache.batch_select_indices(going_on)
        mask = state["attention_mask"][going_on]
        grown = mask.new_ones(len(going_on), tokens.shape[1] - mask.shape[1])
        state = {"input_ids": tokens[going_on], "attention_mask": torch.cat([mask, grown], dim=1), CACHE: cache}
        room = room[going_on] - watch.steps
        rows = [rows[i] for i in going_on.tolist()]
        processor = processor.select(going_on.tolist()) if processor else None


def can_prune(model: Any, inputs: dict[str, torch.Tensor], options: dict[str, Any]) -> bool:
    """Tell whether a row of this model can go on from its token ids and its part of the cache."""
    layers = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ()
    return (
        type(model).generate is GenerationMixin.generate
        and CACHE in inspect.signature(model.forward).parameters
        and not model.config.is_encoder_decoder
        and not model._is_stateful
        and set(layers) <= RESUMABLE_LAYERS
        and set(inputs) <= RESUMABLE_INPUTS
        and not options
    )


def _answers(model: Any, prompt: torch.Tensor, output: torch.Tensor) -> list[list[int]]:
    """Return what was written behind the prompt."""
    width = prompt.shape[1]
    # Models that generate from embeddings return the answer alone, encoder-decoders a start token before it.
    if model.config.is_encoder_decoder:
        output = output[:, 1:]
    elif output.shape[1] >= width and torch.equal(output[:, :width], prompt):
        output = output[:, width:]
    return output.tolist()
