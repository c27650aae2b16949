"""The one place that loads a language model's tokenizer, and the locks under which threads use one together."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.model.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


LOCKS: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()
"""One for each tokenizer in use; gone with it."""
GUARD_OF_LOCKS = threading.Lock()


def hold_tokenizer(tokenizer: Any) -> threading.RLock:
    """Return the lock of a tokenizer, for a `with` statement around everything that is done with it.

    A fast tokenizer is one Rust object that notes how it pads last: two threads that use it in different ways at once
    end with "Already borrowed", or one of them is padded like the other.
    """
    with GUARD_OF_LOCKS:
        return LOCKS.setdefault(tokenizer, threading.RLock())


def load_tokenizer(
    folder: str, *, padding_side: str = "right", trust_remote_code: bool = False
) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer, padding with its pad token or else with eos, as released detectors do.

    Args:
        folder: Folder of a model or an adapter, or a hub id.
        padding_side: `right`, or `left` for generation.
        trust_remote_code: Run Python code that comes with it.

    Raises:
        InputError: When there is none, or only a slow one.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"no tokenizer can be loaded from {folder} ({reason}); copy its tokenizer files") from None
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer in {folder} is a slow one; save its fast form (tokenizer.json) there")
    tokenizer.padding_side = padding_side
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
