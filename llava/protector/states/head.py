"""A harm head on the states of the model that answers: a score after every token, for one product with a vector.

While a multimodal model writes, its middle layers hold what it makes of question, image and answer. Their mean over the
answer's tokens, a prefix sum, meets a linear head (a probe; arXiv 1610.01644, 2604.18519).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llava.errors import InputError
from llava.files import digest_files
from llava.model.answering.states import Projection, hook_layer
from llava.model.files.tensors import read_tensors, write_tensors
from llava.protector.states.config import CONFIG_NAME, POOLINGS, REMEDY, WEIGHTS_NAME, WHAT, StateHeadConfig
from llava.protector.states.finding import check_sizes, find_head
from llava.protector.states.samples import check_samples

if TYPE_CHECKING:
    from PIL.Image import Image

    from llava.model.answering.generation import MultimodalModel

SAMPLE = "sample."
"""Prefix of the samples of the model's weights among a head's tensors."""
BATCH_SIZE = 16


class StateHead:
    """Scores answers by the states of the model that writes them; 1 = harmful.

    It is linear in the mean of the states of an answer's tokens (and, with `mean+last`, in the last one), so of every
    state no more is kept than its product with one direction (or two). Scoring changes nothing, so several threads may
    use one head at once.

    Example:
        model = load_mllm("embedded")
        head = StateHead.from_pretrained("embedded")
        head.check(model)
        answer = model.trace(["How do I cook rice?"], None, head.projection)[0]
        answer.text, head.score_tokens(answer.kept)  # a score after every token
    """

    def __init__(
        self,
        config: StateHeadConfig,
        directions: torch.Tensor,
        bias: float,
        samples: dict[str, torch.Tensor] | None = None,
        name: str = "head",
        *,
        key: str | None = None,
    ):
        """Join the parts.

        Args:
            config: How the head is used.
            directions: Float32, (K, H): for the mean, and for the last state where that is read too.
            bias: What is added to the products.
            samples: Samples of the weights of the model that it was trained on (`samples.py`).
            name: How messages call it.
            key: What tells it from others; None takes the name.

        Raises:
            InputError: When the directions do not fit the config, or are no finite numbers.
        """
        if directions.shape != (POOLINGS[config.pooling], config.hidden_size):
            raise InputError(f"{WHAT} {name}: the weights do not fit {CONFIG_NAME}; {REMEDY}")
        if not (directions.isfinite().all() and math.isfinite(bias)):
            raise InputError(f"{WHAT} {name} holds weights that are no finite numbers; {REMEDY}")
        self.config = config
        self.directions = directions.float()
        self.bias = bias
        self.samples = samples or {}
        self.name = name
        self.key = key or name

    @classmethod
    def from_pretrained(cls, path: str | Path) -> StateHead:
        """Load a head.

        Args:
            path: `embedded`, a folder or a hub id.

        Raises:
            InputError: When it is missing or damaged.
        """
        folder = find_head(str(path))
        config = StateHeadConfig.load(folder)
        file = folder / WEIGHTS_NAME
        if not file.is_file():
            raise InputError(f"{WHAT} {folder} has no {WEIGHTS_NAME}; give the folder of a trained head")
        tensors = read_tensors(file)
        wanted = {"directions", "bias"}
        samples = {key.removeprefix(SAMPLE): value for key, value in tensors.items() if key.startswith(SAMPLE)}
        if wanted - set(tensors) or len(tensors) != len(wanted) + len(samples) or tensors["bias"].shape != (1,):
            raise InputError(f"{file} holds other weights than a {WHAT}'s; {REMEDY}")
        bias = float(tensors["bias"][0])
        key = digest_files(folder / name for name in (CONFIG_NAME, WEIGHTS_NAME))
        return cls(config, tensors["directions"], bias, samples, str(path), key=key)

    def save(self, folder: Path) -> None:
        """Write the head into a folder: weights first, for the config says that they are there."""
        folder.mkdir(parents=True, exist_ok=True)
        samples = {f"{SAMPLE}{name}": sample.half() for name, sample in self.samples.items()}
        write_tensors(
            folder / WEIGHTS_NAME,
            {"directions": self.directions.contiguous(), "bias": torch.tensor([self.bias]), **samples},
        )
        self.config.save(folder)

    @property
    def identity(self) -> str:
        """What it is, and where it flags."""
        return f"{self.key}@{self.threshold}"

    @property
    def threshold(self) -> float:
        """Score from which an answer is flagged where no detector is asked."""
        return self.config.threshold

    @property
    def projection(self) -> Projection:
        """What must be kept of a model's states."""
        return Projection(self.config.layer, self.directions)

    def check(self, model: MultimodalModel) -> None:
        """Refuse a model that the head does not belong to.

        Raises:
            InputError: Naming what differs: the sizes, the kind, or the weights themselves.
        """
        network: Any = model.model
        text = network.config.get_text_config(decoder=True)
        check_sizes(self.config, text, f"{WHAT} {self.name}", model.name)
        check_samples(network, self.config.layer, self.samples, f"{WHAT} {self.name}")

    def score_tokens(self, kept: torch.Tensor | None) -> list[float]:
        """Return a score after every token of an answer.

        Args:
            kept: Products of the tokens' states with the directions, (n, K); None when they were not seen.

        Returns:
            n scores in [0, 1], 1 = harmful; NaN from the first product on that is no finite number.

        Example:
            >>> config = StateHeadConfig("m", "llama", 2, 2, 1)
            >>> head = StateHead(config, torch.tensor([[1.0, 0.0]]), 0.0)
            >>> [round(score, 4) for score in head.score_tokens(torch.tensor([[0.0], [2.0]]))]
            [0.5, 0.7311]
        """
        if kept is None or not len(kept):
            return []
        values = kept.double()
        counts = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)
        logits = values[:, 0].cumsum(0) / counts + values[:, 1:].sum(dim=1) + self.bias
        scores: list[float] = torch.sigmoid(logits / self.config.temperature).tolist()
        return [
            score if math.isfinite(logit) else math.nan for score, logit in zip(scores, logits.tolist(), strict=True)
        ]

    def score_answer(self, kept: torch.Tensor | None) -> float:
        """Return the score of a whole answer, from `kept` as in `score_tokens`; NaN where it is unknown."""
        scores = self.score_tokens(kept)
        return scores[-1] if scores else math.nan

    def watch(self, view: Any) -> StateStream:
        """Follow one answer while it is written.

        Args:
            view: The private view of the model (`view_model`) that will write it: its first pass reads the prompt, each
                later one a token.
        """
        stream = StateStream(self)
        hook_layer(view, self.config.layer, stream.take)
        return stream

    def score(
        self,
        model: MultimodalModel,
        prompts: Sequence[str],
        responses: Sequence[str],
        images: Sequence[Image | None] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> list[float]:
        """Score answers that are there already: the model reads them as if it had written them.

        Args:
            model: The model that the head belongs to.
            prompts: The questions.
            responses: The answers.
            images: One image or None for each question; None: no images at all.
            batch_size: Answers a forward pass.

        Returns:
            One score for each answer in [0, 1], 1 = harmful; NaN for an empty one.

        Raises:
            InputError: When an image or a question cannot be taken by the model.
        """
        from llava.protector.states.reading import AnswerReader

        reader = AnswerReader(model, [self.config.layer])
        pictures = list(images) if images is not None else [None] * len(prompts)
        scores = [math.nan] * len(prompts)
        for with_image in (False, True):
            chosen = [i for i, picture in enumerate(pictures) if (picture is not None) == with_image]
            rows = sorted((i for i in chosen if responses[i].strip()), key=lambda i: len(prompts[i] + responses[i]))
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                found = reader.read(
                    [prompts[i] for i in batch],
                    [responses[i] for i in batch],
                    [pictures[i] for i in batch] if with_image else None,
                )
                for i, (states,) in zip(batch, found, strict=True):
                    scores[i] = self.score_answer(states.float() @ self.directions.to(states.device).T)
        return scores


class StateStream:
    """The scores of one answer while it is written.

    Attributes:
        scores: The score after each token that was read so far.
    """

    def __init__(self, head: StateHead):
        """Wait for the first token."""
        self.head = head
        self.scores: list[float] = []
        self._sees_prompt = True
        self._sum = 0.0

    @property
    def score(self) -> float:
        """Score of the answer so far, 1 = harmful; NaN before its first token."""
        return self.scores[-1] if self.scores else math.nan

    def take(self, states: torch.Tensor) -> None:
        """Take the states of a pass of one row, (1, T, H); the first pass is that of the prompt."""
        if self._sees_prompt:
            self._sees_prompt = False
            return
        self.add(states[0, -1].float() @ self.head.directions.to(states.device).T)

    def add(self, kept: torch.Tensor) -> float:
        """Take a token's products with the directions, (K,); return the score of the answer so far."""
        first, *others = kept.tolist()
        self._sum += first
        logit = self._sum / (len(self.scores) + 1) + sum(others) + self.head.bias
        scaled = max(-700.0, min(700.0, logit / self.head.config.temperature))
        self.scores.append(1 / (1 + math.exp(-scaled)) if math.isfinite(logit) else math.nan)
        return self.scores[-1]
