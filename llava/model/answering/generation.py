"""Batched generation with a multimodal model: prompts and pictures in, texts out, in the same order."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from llava.errors import InputError, first_line
from llava.model.answering.decoding import decode_rows, special_tokens_of
from llava.model.answering.prompts import neutralise, render_prompt, reserved_tokens
from llava.model.answering.sampling import GumbelNoise
from llava.model.answering.states import Projection, StateTrace, TracedAnswer
from llava.model.tokenizers import hold_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image


class MultimodalModel:
    """A vision-language model with its processor, ready to answer; several threads may ask it at once.

    Attributes:
        model: The `transformers` model, in evaluation mode.
        processor: Its processor; the tokenizer pads on the left.
        name: Path or hub id as the user gave it.
        notes: Plain sentences that a reader of results must know, e.g. that the vision tower is untrained.
        defaults: Decoding defaults of every answer: the checkpoint's special tokens, and greedy.
        source: Folder or hub id whose weights it has as they are; None where an adapter has changed them.
    """

    def __init__(self, model: Any, processor: Any, *, name: str, notes: Sequence[str] = (), source: str | None = None):
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.notes = list(notes)
        self.source = source
        self._prepare_tokenizer()
        self._reserved = reserved_tokens(processor)
        # The checkpoint's sampling defaults (temperature, repetition penalty, beams) would leak into every call.
        self.defaults = special_tokens_of(
            model.generation_config,
            eos_token_id=self.eos_token_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            suppress_tokens=self._unspeakable(),
        )
        self.stop_strings: list[str] = self.defaults.stop_strings or []

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.model.device

    @property
    def context_length(self) -> int | None:
        """Positions of prompt and answer together that the language model was built for; None when it has no limit."""
        text_config = self.model.config.get_text_config(decoder=True)
        return getattr(text_config, "max_position_embeddings", None)

    def generate(
        self,
        prompts: Sequence[str],
        images: Sequence[Image | None] | None = None,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Answer each prompt.

        All rows go as one batch (two, when only some have a picture: not every processor takes mixed batches). Out of
        memory is left to the caller, who knows how to split.

        Args:
            prompts: What the user says, B texts. Special tokens in them are defused, see `prompts.neutralise`.
            images: One picture or None for each prompt; None: no pictures at all.
            max_new_tokens: Upper limit of each answer, in tokens.
            temperature: 0 takes the likeliest token at each step; above 0 samples at this temperature.
            seeds: One seed for each row, so that a row's sample does not depend on the batch; None draws them from
                torch's global generator. Unused at temperature 0.

        Returns:
            B answers in the order of the prompts, without special tokens.

        Raises:
            InputError: When lengths differ, a limit is out of range, or a prompt does not fit into the context.
        """
        options: Any = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seeds": seeds}
        return [answer.text for answer in self.trace(prompts, images, None, **options)]

    @torch.inference_mode()
    def trace(
        self,
        prompts: Sequence[str],
        images: Sequence[Image | None] | None,
        projection: Projection | None,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[TracedAnswer]:
        """Answer each prompt, and keep something of the states of every token that is written.

        Args:
            prompts: As `generate`.
            images: As `generate`.
            projection: What is kept of a state; None keeps nothing.
            max_new_tokens: As `generate`, like the two below.
            temperature: As there.
            seeds: As there.

        Returns:
            B answers in the order of the prompts; their texts are those of `generate`.

        Raises:
            InputError: As `generate`, or when the model has no such layer.
        """
        prompts = list(prompts)
        pictures: list[Image | None] = list(images) if images is not None else [None] * len(prompts)
        _check_arguments(prompts, pictures, max_new_tokens, temperature, seeds)
        if temperature > 0 and seeds is None:
            seeds = torch.randint(2**62, (len(prompts),)).tolist()
        answers = [TracedAnswer("")] * len(prompts)
        for with_image in (False, True):
            rows = [i for i, picture in enumerate(pictures) if (picture is not None) == with_image]
            if rows:
                inputs = self.encode([prompts[i] for i in rows], [pictures[i] for i in rows] if with_image else None)
                noise = GumbelNoise(temperature, [seeds[i] for i in rows]) if seeds and temperature > 0 else None
                found = self._generate_batch(inputs, max_new_tokens, noise, projection)
                for row, answer in zip(rows, found, strict=True):
                    answers[row] = answer
        return answers

    def encode(self, prompts: list[str], images: Sequence[Image | None] | None) -> dict[str, torch.Tensor]:
        """Return the model's inputs for prompts that all have a picture, or all have none (`images` None).

        Raises:
            InputError: When the model answers about pictures only, or the picture cannot be processed.
        """
        return self.encode_texts(self.render(prompts, has_image=images is not None), images)

    def render(self, prompts: Sequence[str], *, has_image: bool) -> list[str]:
        """Return what the model reads of each prompt, up to where its answer begins; special tokens are defused."""
        options: Any = {"has_image": has_image, "model_type": self.model.config.model_type}
        return [render_prompt(self.processor, self.defuse(prompt), **options) for prompt in prompts]

    def defuse(self, text: str) -> str:
        """Return a text without special tokens, see `prompts.neutralise`."""
        return neutralise(text, self._reserved)

    def encode_texts(self, texts: list[str], images: Sequence[Image | None] | None) -> dict[str, torch.Tensor]:
        """Return the model's inputs for texts that are rendered already; see `encode`."""
        needs_image = inspect.signature(self.model.generate).parameters.get("pixel_values")
        if images is None and needs_image is not None and needs_image.default is inspect.Parameter.empty:
            raise InputError(f"model {self.name} answers about pictures only; give an image with every prompt")
        bos = self.tokenizer.bos_token
        options: dict[str, Any] = {
            "padding": True,
            "return_tensors": "pt",
            # A template that writes the start token itself must not get a second one.
            "add_special_tokens": not (bos and texts[0].startswith(bos)),
        }
        with hold_tokenizer(self.tokenizer):
            if images is None:
                # Some processors insist on a picture where the model does not.
                batch = self.tokenizer(texts, **options)
            else:
                try:
                    batch = self.processor(text=texts, images=[[image] for image in images], **options)
                except ValueError as error:
                    raise InputError(f"model {self.name} cannot take a picture: {first_line(error)}") from None
        batch.pop("labels", None)
        kinds = {True: self.model.dtype, False: None}
        return {key: value.to(self.device, kinds[value.is_floating_point()]) for key, value in batch.items()}

    def _generate_batch(
        self, inputs: dict[str, torch.Tensor], max_new_tokens: int, noise: Any, projection: Projection | None
    ) -> list[TracedAnswer]:
        """Generate for one encoded batch and return the decoded answers."""
        room = self._room(inputs["attention_mask"].sum(dim=1), max_new_tokens)  # (B,)
        trace = StateTrace(projection, len(room)) if projection else None
        rows = decode_rows(
            self.model,
            inputs,
            room,
            ends=self.eos_token_ids,
            processor=noise,
            defaults=self.defaults,
            trace=trace,
            **({"tokenizer": self.tokenizer} if self.stop_strings else {}),
        )
        if trace is None:
            return [TracedAnswer(self._decode(row)) for row in rows]
        # What ends with a stop text is not read to its last token, which is none of the answer's.
        kept = [trace.of_tokens(i, self._count(row), spare=bool(self.stop_strings)) for i, row in enumerate(rows)]
        return [TracedAnswer(self._decode(row), values) for row, values in zip(rows, kept, strict=True)]

    def _room(self, lengths: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
        """Return how many tokens each row may generate, given its prompt's length, (B,)."""
        room = torch.full_like(lengths, max_new_tokens)
        if self.context_length is None or self.model.config.is_encoder_decoder:
            return room
        longest = int(lengths.max())
        if longest >= self.context_length:
            raise InputError(
                f"prompt of {longest} tokens does not fit into the {self.context_length} positions of model {self.name}"
                "; shorten the prompt"
            )
        return torch.minimum(room, self.context_length - lengths)

    def _decode(self, ids: list[int]) -> str:
        """Return the text of one answer's tokens, up to the first end token."""
        with hold_tokenizer(self.tokenizer):
            text = self.tokenizer.decode(
                ids[: self._count(ids)], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        for stop in self.stop_strings:
            text = text.partition(stop)[0]
        text = text.strip("\n").rstrip()
        # A lone blank joins the answer to the prompt and goes; an indented first line stays as it is.
        return text if text.startswith("  ") else text.removeprefix(" ")

    def _count(self, ids: list[int]) -> int:
        """Return how many tokens stand before the first end token."""
        return next((i for i, token in enumerate(ids) if token in self.eos_token_ids), len(ids))

    def _unspeakable(self) -> list[int] | None:
        """Return the picture placeholder's id, which stands for features and is never an answer."""
        id_ = getattr(self.processor, "image_token_id", None)
        rows = self.model.config.get_text_config(decoder=True).vocab_size
        return [id_] if isinstance(id_, int) and 0 <= id_ < rows else None

    def _prepare_tokenizer(self) -> None:
        """Set padding for generation and collect the tokens that end an answer."""
        tokenizer = self.tokenizer
        declared = getattr(self.model.generation_config, "eos_token_id", None)
        ends = [*(declared if isinstance(declared, list) else [declared]), tokenizer.eos_token_id]
        self.eos_token_ids = sorted({end for end in ends if end is not None})
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token


def _check_arguments(
    prompts: list[str],
    images: list[Image | None],
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int] | None,
) -> None:
    """Refuse arguments that no model can serve."""
    if len(images) != len(prompts):
        raise InputError(f"{len(prompts)} prompts but {len(images)} images; give one image or None for each prompt")
    if any(image is not None and not hasattr(image, "convert") for image in images):
        # Processors would take a string for an address and fetch it.
        raise InputError("images must be PIL images or None; open files by llava.data.images.open_image")
    if seeds is not None and len(seeds) != len(prompts):
        raise InputError(f"{len(prompts)} prompts but {len(seeds)} seeds; give one seed for each prompt")
    if max_new_tokens < 1:
        raise InputError(f"--max-new-tokens is {max_new_tokens}; it must be at least 1")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"--temperature is {temperature}; it must be 0 (greedy) or a positive number")
