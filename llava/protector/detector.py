"""The harm detector: how likely is a response to be harmful?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.protector.config import ProtectorConfig
from llava.protector.text import Window, encode_windows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from llava.protector.classifier import HarmClassifier


class HarmDetector:
    """Scores responses with a one-logit classifier (arXiv 2401.02906, section 4.1).

    Example:
        detector = HarmDetector.from_pretrained("embedded")
        detector.score(["First, boil the water."], prompts=["How do I cook rice?"])  # [0.01]
    """

    def __init__(
        self,
        classifier: HarmClassifier,
        tokenizer: PreTrainedTokenizerFast,
        config: ProtectorConfig,
        name: str = "detector",
    ):
        """Join a network, its tokenizer and the config that says how they are used."""
        self.classifier = classifier.eval()
        self.tokenizer = tokenizer
        self.config = config
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        base: str | None = None,
        device: str | torch.device | None = None,
        dtype: str = "auto",
    ) -> HarmDetector:
        """Load a detector: `embedded`, a PEFT adapter or a merged classifier, by folder or hub id.

        Args:
            path: The checkpoint. Without a `protector_config.json` it is read as a released one (label 1 = safe).
            base: Base model of an adapter; None takes the one that the adapter names.
            device: Where to run; None detects.
            dtype: `auto`, `float32`, `bfloat16` or `float16`.

        Raises:
            InputError: When the checkpoint is missing, damaged, of another kind, or belongs to another base.
        """
        import torch

        from llava.model.adapters import load_adapter
        from llava.model.devices import pick_device, pick_dtype
        from llava.protector.checkpoints import load_checkpoint_tokenizer, open_checkpoint
        from llava.protector.classifier import HarmClassifier, load_sequence_classifier

        checkpoint = open_checkpoint("detector", str(path), base)
        config = checkpoint.config
        place = pick_device(str(device) if device is not None else None)
        model = load_sequence_classifier(
            checkpoint.model,
            num_layers=config.num_layers,
            dtype=pick_dtype(place, dtype),
            with_head=not checkpoint.adapter,
        )
        classifier: Any = HarmClassifier(model, pooling=config.pooling)
        if checkpoint.adapter:
            classifier = load_adapter(classifier, checkpoint.adapter, checkpoint.model).merge_and_unload()
        # The head decides; it is 576 to 4,096 numbers and costs nothing in full precision.
        classifier.score.to(torch.float32)
        return cls(classifier.to(place), load_checkpoint_tokenizer(checkpoint), config, name=str(path))

    @property
    def threshold(self) -> float:
        """Harm score from which a response is flagged."""
        return self.config.threshold

    def score(
        self, responses: Sequence[str], prompts: Sequence[str] | None = None, batch_size: int = 16
    ) -> list[float]:
        """Score responses.

        A response longer than the detector's window is scored in overlapping windows and takes the highest score: one
        harmful passage makes a response harmful.

        Args:
            responses: Texts to score.
            prompts: The questions they answer, one each; used when the detector reads `prompt+response`. None stands
                for unknown questions.
            batch_size: Windows a forward pass.

        Returns:
            One harm score a response in [0, 1], 1 = harmful. NaN where there is nothing to score (an empty response) or
            the network gives no finite number; callers must treat NaN as unsafe.

        Raises:
            ValueError: When prompts and responses differ in number.
        """
        if prompts is not None and len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses; give one each")
        questions = prompts if prompts is not None else [""] * len(responses)
        windows: list[tuple[int, Window]] = [
            (row, window)
            for row, (prompt, response) in enumerate(zip(questions, responses, strict=True))
            for window in encode_windows(self.tokenizer, self.config, prompt, response)
        ]
        windows.sort(key=lambda item: len(item[1].ids))
        window_scores: list[list[float]] = [[] for _ in responses]
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            for (row, _), harm_score in zip(batch, self._forward([window for _, window in batch]), strict=True):
                window_scores[row].append(harm_score)
        return [_worst(scores) for scores in window_scores]

    def _forward(self, windows: list[Window]) -> list[float]:
        """Return the harm score of each window."""
        import torch

        from llava.protector.classifier import pad_windows

        place = self.classifier.device
        batch = pad_windows(windows, self.tokenizer.pad_token_id or 0)
        with torch.inference_mode():
            logits = self.classifier(**{name: tensor.to(place) for name, tensor in batch.items()}).logits  # (B, 1)
        p_positive = torch.sigmoid(logits[:, 0].double() / self.config.temperature)
        p_harmful = p_positive if self.config.positive_label == "harmful" else 1.0 - p_positive
        return p_harmful.tolist()


def _worst(scores: list[float]) -> float:
    """Return the highest score, or NaN when there is none or any is not finite."""
    return max(scores) if scores and all(map(math.isfinite, scores)) else math.nan
