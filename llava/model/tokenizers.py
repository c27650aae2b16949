"""The one place that loads a language model's tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llava.errors import InputError
from llava.model.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def load_tokenizer(folder: str) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer, padding on the right with its pad token or else with eos, as released detectors do.

    Args:
        folder: Folder of a model or an adapter, or a hub id.

    Raises:
        InputError: When there is none, or only a slow one.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"no tokenizer can be loaded from {folder} ({reason}); copy its tokenizer files") from None
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer in {folder} is a slow one; save its fast form (tokenizer.json) there")
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
