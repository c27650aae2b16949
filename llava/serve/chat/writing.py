"""One answer of a model in this process, written token by token: its text as it grows, its stops, and how to end it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from llava.model.answering.generation import MultimodalModel
from llava.model.answering.sampling import GumbelNoise
from llava.model.tokenizers import hold_tokenizer
from llava.model.views import view_model

REPLACEMENT = "\ufffd"
"""Stands at the end of a decoded text whose last character is not yet whole."""


class Ending(StoppingCriteria):
    """Ends a generation when it is told to."""

    def __init__(self, told: threading.Event):
        self.told = told

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return whether each row is to end now, (B,) bool."""
        return torch.full((len(input_ids),), self.told.is_set(), dtype=torch.bool, device=input_ids.device)


class Writer(BaseStreamer):
    """Turns the tokens of one answer into text while they come; a streamer of `transformers`.

    All pieces together are what `MultimodalModel.generate` returns for the same tokens: white space at either end is
    held back until a word follows, and so is what may be the beginning of a stop text.

    Attributes:
        ids: Tokens so far, the end token included.
        reason: Why it ended: `stop` or `length`.
    """

    def __init__(self, model: MultimodalModel, stops: Sequence[str], show: Callable[[str], object]):
        """Wait for the first token.

        Args:
            model: Who writes.
            stops: Texts before which the answer ends.
            show: Gets each piece, in the thread that generates.
        """
        self.model = model
        self.stops = [*stops, *model.stop_strings]
        self.show = show
        self.told = threading.Event()
        self.ids: list[int] = []
        self.reason = "length"
        self._sees_prompt = True
        self._start = self._read = 0
        self._raw = ""
        self._shown = 0

    def put(self, value: torch.Tensor) -> None:
        """Take the next token; the first call brings the prompt."""
        if self._sees_prompt:
            self._sees_prompt = False
            return
        for token in value.flatten().tolist():
            self.ids.append(token)
            if token in self.model.eos_token_ids:
                self.reason = "stop"
                return
        if not self.told.is_set():
            self._raw += self._decode(at_end=False)
            self._advance(at_end=False)

    def end(self) -> None:
        """Show the rest."""
        if not self.told.is_set():
            self._raw += self._decode(at_end=True)
            self._advance(at_end=True)

    def _decode(self, at_end: bool) -> str:
        """Return the text that the tokens since the last call add; nothing while a character is not whole."""
        ids = [token for token in self.ids if token not in self.model.eos_token_ids]
        with hold_tokenizer(self.model.tokenizer):
            known, text = (
                self.model.tokenizer.decode(part, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                for part in (ids[self._start : self._read], ids[self._start :])
            )
        if text.endswith(REPLACEMENT) and not at_end:
            return ""
        self._start, self._read = self._read, len(ids)
        return text[len(known) :]

    def _advance(self, at_end: bool) -> None:
        """Show what can be shown of the text so far."""
        places = [place for stop in self.stops if (place := self._raw.find(stop)) >= 0]
        if places:
            text, self.reason = self._raw[: min(places)], "stop"
        else:
            text = self._raw if at_end else self._raw[: len(self._raw) - self._find_begun_stop()]
        visible = trim(text)
        if len(visible) > self._shown:
            self.show(visible[self._shown :])
            self._shown = len(visible)
        if places:
            self.told.set()

    def _find_begun_stop(self) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        sizes = (size for stop in self.stops for size in range(len(stop) - 1, 0, -1) if self._raw.endswith(stop[:size]))
        return max(sizes, default=0)


def trim(text: str) -> str:
    """Return an answer without the white space around it, as `MultimodalModel.generate` returns it.

    Example:
        >>> trim("\\n Boil it. \\n"), trim("    indented")
        ('Boil it.', '    indented')
    """
    text = text.strip("\n").rstrip()
    return text if text.startswith("  ") else text.removeprefix(" ")


@torch.inference_mode()
def write(
    writer: Writer,
    inputs: dict[str, torch.Tensor],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float | None,
    seed: int,
) -> None:
    """Generate one answer in this thread; `writer.told` ends it.

    Args:
        writer: Gets the tokens.
        inputs: The model's inputs, one row.
        max_new_tokens: Longest answer, in tokens.
        temperature: Sampling temperature; 0 is greedy.
        top_p: Share of the likeliest tokens that are sampled from; None takes all.
        seed: Seed of sampling.
    """
    model = writer.model
    view = view_model(model.model)
    view.generation_config = model.defaults
    processors: list[Any] = []
    if temperature > 0 and top_p is not None and top_p < 1:
        processors = [TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p), GumbelNoise(1.0, [seed])]
    elif temperature > 0:
        processors = [GumbelNoise(temperature, [seed])]
    plan = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, use_cache=True)
    view.generate(
        **inputs,
        **({"tokenizer": model.tokenizer} if model.stop_strings else {}),
        generation_config=plan,
        logits_processor=LogitsProcessorList(processors),
        stopping_criteria=StoppingCriteriaList([Ending(writer.told)]),
        streamer=writer,
    )
