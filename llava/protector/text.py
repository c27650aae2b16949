"""From (prompt, response) to token ids: the one place where training and inference meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llava.constants import DETECTOR_TEMPLATES, DETOXIFIER_TEMPLATES
from llava.model.tokenizers import break_up, encode_text
from llava.protector.config import ProtectorConfig
from llava.protector.normalise import list_readings, normalise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WINDOW_OVERLAP = 8
"""Consecutive windows of a long response share 1/8 of their length, so that no sentence is only seen cut."""
HEAD_SHARE = 2
"""At most half of a window is the question. Of a longer one, or a long conversation, the end is read: there stands what
was asked last."""


class Window(NamedTuple):
    """A part of a detector's input text that fits its network."""

    ids: list[int]
    """Token ids."""
    head: int = 0
    """How many of them come before the response: special tokens, the question."""


def render_detector_text(config: ProtectorConfig, prompt: str, response: str) -> tuple[str, int]:
    r"""Return the detector's input text and the character position where the response begins.

    Example:
        >>> config = ProtectorConfig(kind="detector", text_form="prompt+response")
        >>> render_detector_text(config, "Why?", "Because.")
        ('Question: Why?\n\nAnswer: Because.', 24)
    """
    template = DETECTOR_TEMPLATES[config.text_form]
    head = template[: template.index("{response}")].replace("{prompt}", prompt)
    return head + response, len(head)


class PairTokens(NamedTuple):
    """A detector's input text in tokens, before it is cut."""

    ids: list[int]
    """Token ids."""
    head: int
    """How many of them come before the response."""
    spans: list[tuple[int, int]]
    """Where each of the response's tokens begins and ends in the response, in characters."""


def tokenise_pair(
    tokenizer: PreTrainedTokenizerFast, config: ProtectorConfig, prompt: str, response: str
) -> PairTokens | None:
    """Tokenise one pair; None when the response has no token of its own."""
    plain = break_up(tokenizer, response)
    text, start = render_detector_text(config, break_up(tokenizer, prompt), plain)
    encoding = encode_text(tokenizer, text, return_offsets_mapping=True, verbose=False)
    ids: list[int] = encoding["input_ids"]
    offsets: list[tuple[int, int]] = encoding["offset_mapping"]
    # A token belongs to the response when it ends behind the response's first character.
    head = next((i for i, (_, end) in enumerate(offsets) if end > start), len(ids))
    if not response.strip() or head == len(ids):
        return None
    spans = [(max(0, left - start), max(0, right - start)) for left, right in offsets[head:]]
    ids, head = shorten_head(ids, head, config.max_length // HEAD_SHARE)
    if plain != response:
        places = locate_characters(plain, response)
        spans = [(places[left], places[right]) for left, right in spans]
    return PairTokens(ids, head, spans)


def shorten_head(ids: list[int], head: int, most: int) -> tuple[list[int], int]:
    """Leave out the beginning of a long question, but for its first token, which may be the tokenizer's start token.

    Args:
        ids: Token ids of question and response.
        head: How many of them come before the response.
        most: How many of those may stay, at least one where there is one.

    Example:
        >>> shorten_head([1, 2, 3, 4, 5, 6], 5, 3), shorten_head([1, 2, 3], 2, 3)
        (([1, 4, 5, 6], 3), ([1, 2, 3], 2))
    """
    kept = max(1, most)
    if head <= kept:
        return ids, head
    return [*ids[:1], *ids[head - kept + 1 :]], kept


def locate_characters(changed: str, text: str) -> list[int]:
    """Return for every position of a text with blanks put in, or signs left out, where it is in the text itself.

    Example:
        >>> locate_characters("a< /s>", "a</s>")
        [0, 1, 2, 2, 3, 4, 5]
    """
    places, position = [0], 0
    for character in changed:
        if text[position : position + 1] == character:
            position += 1
        elif character != " " and (found := text.find(character, position)) >= 0:
            position = found + 1
        places.append(position)
    return places


def cut_windows(text: PairTokens, max_length: int) -> list[tuple[int, Window]]:
    """Return the windows of a text, each with the number of the response's token that it begins at."""
    if len(text.ids) <= max_length:
        return [(0, Window(text.ids, text.head))]
    head, body = text.ids[: text.head], text.ids[text.head :]
    size = max_length - len(head)
    step = max(1, size - size // WINDOW_OVERLAP)
    starts = range(0, max(1, len(body) - size + step), step)
    return [(i, Window(head + body[i : i + size], len(head))) for i in starts]


def encode_windows(
    tokenizer: PreTrainedTokenizerFast, config: ProtectorConfig, prompt: str, response: str
) -> list[Window]:
    """Tokenise one pair into windows of at most `config.max_length` tokens that cover the whole response.

    A text that fits gives one window, the plain tokenisation. In a longer one each window repeats the head (special
    tokens, the question) and goes on with the next part of the response. A question that would take more than half
    of a window loses its beginning.

    Args:
        tokenizer: A fast tokenizer (character offsets are needed).
        config: The detector's config.
        prompt: The question; not looked at when `config.text_form` is `response`.
        response: The text to be scored.

    Returns:
        The windows in order; an empty list when the response has no token of its own.
    """
    text = tokenise_pair(tokenizer, config, prompt, response)
    return [window for _, window in cut_windows(text, config.max_length)] if text else []


def encode_readings(
    tokenizer: PreTrainedTokenizerFast, config: ProtectorConfig, prompt: str, response: str
) -> list[Window]:
    """Tokenise all that a detector reads of one pair; the worst of the windows counts.

    Without `config.normalise` that is the pair as it stands. With it, the pair without disguises, and each text that is
    hidden in the response, as an answer of its own.

    Args:
        tokenizer: A fast tokenizer.
        config: The detector's config.
        prompt: The question.
        response: The text to be scored.

    Returns:
        The windows of `encode_windows`, those of the response itself first.
    """
    return [
        window
        for question, reading in list_pairs(config, prompt, response)
        for window in encode_windows(tokenizer, config, question, reading)
    ]


def list_pairs(config: ProtectorConfig, prompt: str, response: str) -> list[tuple[str, str]]:
    """Return the question and the response in every form that a detector reads, that of the response itself first.

    Args:
        config: The detector's config.
        prompt: The question.
        response: The text to be scored.
    """
    if not config.normalise:
        return [(prompt, response)]
    question = normalise(prompt)
    return [(question, reading) for reading in list_readings(response)]


def render_detoxifier_prompt(config: ProtectorConfig, prompt: str, response: str) -> str:
    """Return the text after which the detoxifier writes the harmless response."""
    head, tail = split_detoxifier_prompt(config, prompt)
    return head + response + tail


def split_detoxifier_prompt(config: ProtectorConfig, prompt: str) -> tuple[str, str]:
    """Return what stands before and behind the response in the detoxifier's prompt.

    Long examples are shortened at the response, never at the instruction, hence the two parts.
    """
    template = DETOXIFIER_TEMPLATES[config.text_form]
    head, tail = template.split("{response}")
    return head.replace("{prompt}", prompt), tail


def encode_detoxifier_prompt(
    tokenizer: PreTrainedTokenizerFast, config: ProtectorConfig, prompt: str, response: str, max_tokens: int
) -> tuple[list[int], bool]:
    """Tokenise the detoxifier's prompt in at most `max_tokens` tokens by cutting the end of the response.

    Returns:
        Token ids, and whether the response was cut.
    """
    prompt, response = break_up(tokenizer, prompt), break_up(tokenizer, response)
    text = render_detoxifier_prompt(config, prompt, response)
    ids: list[int] = encode_text(tokenizer, text, verbose=False)["input_ids"]
    if len(ids) <= max_tokens:
        return ids, False
    head, tail = split_detoxifier_prompt(config, prompt)
    head_ids: list[int] = encode_text(tokenizer, head, verbose=False)["input_ids"]
    tail_ids: list[int] = encode_text(tokenizer, tail, add_special_tokens=False)["input_ids"]
    body_ids: list[int] = encode_text(tokenizer, response, add_special_tokens=False, verbose=False)["input_ids"]
    # The instruction and the marker at the end must stay; a question that fills the window is cut too.
    head_ids = head_ids[: max(1, max_tokens - len(tail_ids) - min(len(body_ids), max_tokens // 4))]
    room = max(0, max_tokens - len(head_ids) - len(tail_ids))
    return head_ids + body_ids[:room] + tail_ids, True
