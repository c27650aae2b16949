"""The one place that loads a language model's tokenizer, and the locks under which threads use one together."""

from __future__ import annotations

import json
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.fields import Fields
from llava.files import read_json
from llava.model.failures import describe_error
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


STUBBORN: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()
"""For each tokenizer in use, its reserved tokens that it finds in plain text all the same."""


def encode_text(tokenizer: Any, text: Any, **options: Any) -> Any:
    """Tokenise what somebody wrote: a control token spelled out in it, such as `<|im_end|>`, is text like any other.

    Args:
        tokenizer: A fast tokenizer.
        text: A text or a list of texts, each gone through `break_up`.
        options: As of the tokenizer's own call.

    Returns:
        What the tokenizer returns. Tokens that it adds at the start or the end are there.
    """
    return tokenizer(text, split_special_tokens=True, **options)


def break_up(tokenizer: Any, text: str) -> str:
    """Return a text without the control tokens that a tokenizer reads even where `encode_text` asks it not to.

    With most tokenizers that is the text itself. Some have control tokens in their vocabulary of pieces, or as added
    tokens that do not count as special; those are broken up by a blank.
    """
    from llava.model.answering.prompts import neutralise, reserved_tokens

    with hold_tokenizer(tokenizer):
        if tokenizer not in STUBBORN:
            every = reserved_tokens(tokenizer)
            STUBBORN[tokenizer] = [token for token in every if _stays_whole(tokenizer, token)]
        return neutralise(text, STUBBORN[tokenizer])


def _stays_whole(tokenizer: Any, token: str) -> bool:
    """Tell whether a control token in a text is read as such."""
    number = tokenizer.convert_tokens_to_ids(token)
    return number in encode_text(tokenizer, f"a{token}b", add_special_tokens=False, verbose=False)["input_ids"]


def load_tokenizer(
    folder: str, rows: int | None = None, *, padding_side: str = "right", trust_remote_code: bool = False
) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer, padding with its pad token or else with eos, as released detectors do.

    Tokens that were added behind the network's embeddings (a `[PAD]` that was never trained) are taken out: they would
    be read beyond the end of a matrix. Their text is then text like any other.

    Args:
        folder: Folder of a model or an adapter, or a hub id.
        rows: Rows of the network's token embeddings; None reads them from the folder's config.json where it has one.
        padding_side: `right`, or `left` for generation.
        trust_remote_code: Run Python code that comes with it.

    Raises:
        InputError: When there is none, or only a slow one, or one of another model.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
            tokenizer("Some text.")  # a limit that is no number, say, would be met here first
    except Exception as error:  # noqa: BLE001 - its files come from others and lead anywhere
        raise InputError(
            f"no tokenizer can be loaded from {folder} ({describe_error(error)}); copy its tokenizer files"
        ) from None
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer in {folder} is a slow one; save its fast form (tokenizer.json) there")
    rows = rows if rows is not None else count_rows(Path(folder))
    if rows is not None and max(tokenizer.get_vocab().values(), default=0) >= rows:
        tokenizer = remove_tokens_from(tokenizer, rows, folder)
    tokenizer.padding_side = padding_side
    if tokenizer.eos_token is None:
        raise InputError(f"the tokenizer in {folder} has no eos token; copy the model's own tokenizer files there")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def count_rows(folder: Path) -> int | None:
    """Return how many rows the token embeddings of the model in `folder` have; None when its config does not say."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    fields = Fields(read_json(path, "model config"), f"model config {path}", "fetch the model again")
    if "vocab_size" not in fields and fields.mapping("text_config", None) is not None:
        fields = fields.inner("text_config")
    return fields.integer("vocab_size", None, least=1)


def remove_tokens_from(tokenizer: PreTrainedTokenizerFast, rows: int, folder: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer without the added tokens whose ids begin at `rows`.

    Raises:
        InputError: When other tokens are beyond as well, for then it is another model's tokenizer.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < rows]
    others = InputError(
        f"the tokenizer in {folder} has {len(tokenizer)} tokens, the network's embeddings {rows} rows; "
        "copy the model's own tokenizer files there"
    )
    try:
        backend = Tokenizer.from_str(json.dumps(content))
    except Exception:  # noqa: BLE001 - the library raises nothing else; a template may need a token that is gone
        raise others from None
    if max(backend.get_vocab().values(), default=0) >= rows:
        raise others
    kept = {
        name: token
        for name, token in tokenizer.special_tokens_map.items()
        if isinstance(token, str) and backend.token_to_id(token) is not None
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        **kept,
    )
