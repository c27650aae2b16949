"""The harm detector: how likely is a response to be harmful?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.token_scores import TokenScore
from llava.model.options import LoadOptions, collect_options
from llava.protector.config import ProtectorConfig
from llava.protector.normalise import normalise
from llava.protector.text import Window, encode_readings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from llava.model.answering.generation import MultimodalModel
    from llava.model.backbone import Backbone
    from llava.protector.classifier import HarmClassifier
    from llava.protector.streaming.opening import TokenStream


BATCH_SIZE = 16
"""Full windows a forward pass unless told otherwise; of shorter ones as many more fit."""


class HarmDetector:
    """Scores responses with a one-logit classifier (arXiv 2401.02906, section 4.1); a `Guard`.

    Scoring changes nothing, so several threads may use one detector at once.

    Example:
        detector = HarmDetector.from_pretrained("embedded")
        detector.score(["First, boil the water."], prompts=["How do I cook rice?"])  # one number from 0 to 1
    """

    def __init__(
        self,
        classifier: HarmClassifier,
        tokenizer: PreTrainedTokenizerFast,
        config: ProtectorConfig,
        name: str = "detector",
        *,
        key: str | None = None,
        batch_size: int = BATCH_SIZE,
    ):
        """Join a network, its tokenizer and the config that says how they are used.

        Args:
            classifier: The network.
            tokenizer: Its tokenizer.
            config: How both are used.
            name: How messages call it.
            key: What tells the checkpoint from others, e.g. a digest; None takes the name.
            batch_size: Full windows a forward pass, of shorter ones more.
        """
        self.classifier = classifier.eval()
        self.tokenizer = tokenizer
        self.config = config
        self.name = name
        self.key = key or name
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        options: LoadOptions | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        backbone: MultimodalModel | Backbone | None = None,
        **keywords: Any,
    ) -> HarmDetector:
        """Load a detector: `embedded`, a PEFT adapter or a merged classifier, by folder or hub id.

        Args:
            path: The checkpoint. Without a `protector_config.json` it is read as a released one (label 1 = safe).
            options: How it is loaded; None stands for the defaults.
            batch_size: Full windows a forward pass, of shorter ones more.
            backbone: A multimodal model in memory whose language model is the adapter's base: the detector uses its
                weights, in its numbers and on its device, instead of a copy of them.
            keywords: Fields of `LoadOptions` by name, such as `device`, `dtype` and `base`; they win over `options`.

        Raises:
            InputError: When the checkpoint is missing, damaged, of another kind, or belongs to another base.
        """
        import torch

        from llava.model.adapters import merge_into, put_beside
        from llava.model.backbone import as_backbone
        from llava.protector.checkpoints import (
            identify_part,
            load_checkpoint_tokenizer,
            open_checkpoint,
            share_network,
        )
        from llava.protector.classifier import HarmClassifier, load_sequence_classifier

        chosen = collect_options(options, keywords)
        checkpoint = open_checkpoint("detector", str(path), chosen.base)
        config = checkpoint.config
        offered = as_backbone(backbone)
        model = shared = share_network("detector", checkpoint, offered, chosen)
        if shared is None:
            model = load_sequence_classifier(
                checkpoint.model,
                num_layers=config.num_layers,
                with_head=not checkpoint.adapter,
                **chosen.build_arguments(kept_whole=("score",)),
            )
        classifier: Any = HarmClassifier(model, config.pooling, config.stretches, config.stretch_margin)
        if checkpoint.adapter:
            # Shared and quantised weights must stay what they are: the adapter's product is added beside them.
            add = put_beside if shared is not None or chosen.is_quantised else merge_into
            classifier = add(classifier, checkpoint.adapter, checkpoint.base)
        # The head decides; it is 576 to 4,096 numbers and costs nothing in full precision.
        classifier.score.to(torch.float32)
        placed = classifier if shared is not None else chosen.place(classifier)
        tokenizer = load_checkpoint_tokenizer(checkpoint, offered.tokenizers if offered else None)
        key = identify_part("detector", str(path), chosen.base).key
        return cls(placed, tokenizer, config, str(path), key=key, batch_size=batch_size)

    @property
    def identity(self) -> str:
        """What it is, and where it flags."""
        return f"{self.key}@{self.threshold}"

    @property
    def threshold(self) -> float:
        """Harm score from which a response is flagged."""
        return self.config.threshold

    def score(
        self, responses: Sequence[str], prompts: Sequence[str] | None = None, batch_size: int | None = None
    ) -> list[float]:
        """Score responses.

        A response longer than the detector's window is scored in overlapping windows and takes the highest score: one
        harmful passage makes a response harmful.

        Args:
            responses: Texts to score.
            prompts: The questions they answer, one each; used when the detector reads `prompt+response`. None stands
                for unknown questions.
            batch_size: Full windows a forward pass, of shorter ones more; None takes the detector's own.

        Returns:
            One harm score a response in [0, 1], 1 = harmful. NaN where there is nothing to score (an empty response) or
            the network gives no finite number; callers must treat NaN as unsafe.

        Raises:
            ValueError: When prompts and responses differ in number.
        """
        if prompts is not None and len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses; give one each")
        from llava.model.tokenizers import hold_tokenizer

        questions = prompts if prompts is not None else [""] * len(responses)
        with hold_tokenizer(self.tokenizer):
            windows: list[tuple[int, Window]] = [
                (row, window)
                for row, (prompt, response) in enumerate(zip(questions, responses, strict=True))
                for window in encode_readings(self.tokenizer, self.config, prompt, response)
            ]
        window_scores: list[list[float]] = [[] for _ in responses]
        harm_scores = self._score_windows([window for _, window in windows], batch_size or self.batch_size)
        for (row, _), harm_score in zip(windows, harm_scores, strict=True):
            window_scores[row].append(harm_score)
        return [_worst(scores) for scores in window_scores]

    def open_stream(self, prompt: str) -> TokenStream:
        """Begin a response that is scored while it grows, each of its tokens read once.

        A network that cannot go on from a cache (a recurrent one, dynamic RoPE) reads the text so far anew each time.

        Args:
            prompt: The question; empty when it is unknown.

        Returns:
            A stream whose `add(piece)` returns what `score` gives for the text so far, within 1e-4 where the network
            calculates in single precision. It belongs to one thread at a time.

        Example:
            stream = detector.open_stream("How do I cook rice?")
            stream.add("First, boil"), stream.add(" the water.")  # two numbers from 0 to 1
        """
        from llava.protector.streaming.detector import DetectorStream
        from llava.protector.streaming.opening import RescoringStream
        from llava.protector.streaming.windows import can_resume

        if not can_resume(self.classifier):
            return RescoringStream(self, prompt)
        return DetectorStream(self.classifier, self.tokenizer, self.config, prompt)

    def explain(self, prompt: str, response: str) -> list[TokenScore]:
        """Score every token of a response: where does it become harmful?

        A token's score is that of the sixteen tokens around it, from one pass over the whole response, so it has read
        the question and all that stands before. The scores show where to look; whether the response is flagged, `score`
        says, which looks at longer stretches. With `last` pooling a token's score is what the response would have had
        around it, had it ended there.

        Args:
            prompt: The question; empty when it is unknown.
            response: The text to explain.

        Returns:
            One `TokenScore(start, end, score)` a token, in order; the character offsets cover the response. Empty where
            there is nothing to score.
        """
        from llava.model.tokenizers import hold_tokenizer
        from llava.protector.scoring.explanation import MOST_ALIGNED, align_positions, explain_tokens
        from llava.protector.text import tokenise_pair

        # As in `score`, the question and the answer are read without disguises.
        plain = normalise(response) if self.config.normalise and len(response) <= MOST_ALIGNED else response
        question = normalise(prompt) if self.config.normalise else prompt
        with hold_tokenizer(self.tokenizer):
            text = tokenise_pair(self.tokenizer, self.config, question, plain)
        if text is None:
            return []
        network = self._view_network()
        padding = self.tokenizer.pad_token_id or 0
        found = explain_tokens(network, self.config, text, pad_token_id=padding, batch_size=self.batch_size)
        if plain == response:
            return found
        places = align_positions(plain, response)
        return [TokenScore(places[start], places[end], score) for start, end, score in found]

    def _view_network(self) -> HarmClassifier:
        """Return the network for one call: the shared one, or a view where a pass keeps something in it."""
        from llava.model.views import keeps_state, view_model

        return view_model(self.classifier) if keeps_state(self.classifier) else self.classifier

    def _score_windows(self, windows: list[Window], batch_size: int) -> list[float]:
        """Return the harm score of each window."""
        import torch

        from llava.protector.scoring.passes import read_logits

        found = read_logits(
            self._view_network(),
            windows,
            pad_token_id=self.tokenizer.pad_token_id or 0,
            budget=batch_size * self.config.max_length,
        )
        p_positive = torch.sigmoid(torch.tensor(found, dtype=torch.float64) / self.config.temperature)
        p_harmful = p_positive if self.config.positive_label == "harmful" else 1.0 - p_positive
        return p_harmful.tolist()


def _worst(scores: list[float]) -> float:
    """Return the highest score, or NaN when there is none or any is not finite."""
    return max(scores) if scores and all(map(math.isfinite, scores)) else math.nan
