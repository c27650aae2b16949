"""Guarding a whole answer: every text of every choice is checked before any of it leaves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from llava.data.schema import GuardResult
from llava.serve.chat.calls import clean_call, clean_function, describe_call
from llava.serve.chat.guarding import (
    FILTERED,
    SAID_FIELDS,
    AnswerGuard,
    clean_finish,
    clean_usage,
    is_held,
    keep_known,
    list_unread,
    read_text,
)
from llava.serve.errors import BROKEN, ApiError

MOST_OTHERS, LONGEST_TOKEN = 20, 32
"""Other tokens beside one of an answer, and characters of each, that go on: no message fits in."""


@dataclass
class Choice:
    """One answer of several, taken apart."""

    index: int
    """Its number."""
    finish_reason: str
    """Why it ended."""
    texts: dict[str, str]
    """Field of the message → what it says; empty texts included."""
    calls: list[dict[str, Any]]
    """Calls of tools, in the form of today."""
    function: dict[str, str] | None
    """Call in the old form."""
    logprobs: Any
    """Probabilities of the tokens of `content`, which show its words."""
    removed: list[str]
    """What was left out because nobody could check it."""
    found: dict[str, GuardResult] = field(default_factory=dict)
    """Part of the answer → what was decided about it."""


async def guard_completion(body: Mapping[str, Any], guard: AnswerGuard) -> dict[str, Any]:
    """Return an answer of a model with everything checked.

    A flagged `content` is replaced, other flagged texts and calls are taken out; the choice then ends with
    `content_filter`. Each choice says in `mllm_protector` what was done and what was looked at.

    Args:
        body: The answer (`chat.completion`) as the model gave it.
        guard: Knows request and guard.

    Raises:
        ApiError: When it is no answer, or too many texts wait for the guard.
    """
    entries = body.get("choices")
    if not isinstance(entries, list) or not entries:
        raise ApiError(502, "the model's answer has no choices", kind=BROKEN, code="upstream_error")
    choices = [read_choice(entry, place) for place, entry in enumerate(entries)]
    await check_choices(choices, guard)
    usage = clean_usage(body.get("usage"))
    return {
        **keep_known(body),
        "object": "chat.completion",
        "choices": [build_choice(choice, guard) for choice in choices],
        **({"usage": usage} if usage is not None else {}),
    }


def read_choice(entry: Any, place: int) -> Choice:
    """Take a choice apart.

    Raises:
        ApiError: When it is none.
    """
    message = entry.get("message") if isinstance(entry, Mapping) else None
    if not isinstance(message, Mapping):
        raise ApiError(502, f"choice {place} of the model's answer has no message", kind=BROKEN, code="upstream_error")
    texts, removed = {}, list_unread(message)
    for name in SAID_FIELDS:
        if message.get(name) is not None:
            texts[name], cut = read_text(message[name])
            removed += [f"{name} parts"] if cut else []
    raw, index = message.get("tool_calls") or [], entry.get("index")
    calls = [call for call in map(clean_call, raw if isinstance(raw, list) else []) if call is not None]
    return Choice(
        index=index if isinstance(index, int) and not isinstance(index, bool) else place,
        finish_reason=clean_finish(entry.get("finish_reason")),
        texts=texts,
        calls=calls,
        function=clean_function(message.get("function_call")),
        logprobs=clean_logprobs(entry.get("logprobs"), texts.get("content", "")),
        removed=removed,
    )


def clean_logprobs(found: Any, text: str) -> dict[str, Any] | None:
    """Return the probabilities of an answer's tokens; None where their tokens are not the answer's text.

    Of each token its text, its probability and those of the likeliest others are kept.

    Args:
        found: The `logprobs` of a choice.
        text: The answer.

    Example:
        >>> clean_logprobs({"content": [{"token": "Hi", "logprob": -0.5, "note": "x"}]}, "Hi")
        {'content': [{'token': 'Hi', 'logprob': -0.5, 'top_logprobs': []}]}
    """
    entries = found.get("content") if isinstance(found, Mapping) else None
    tokens = [_clean_token(entry) for entry in entries] if isinstance(entries, list) else []
    if not tokens or "".join(token["token"] for token in tokens) != text:
        return None
    for token, entry in zip(tokens, entries or [], strict=True):
        others = entry.get("top_logprobs") if isinstance(entry, Mapping) else None
        kept = [_clean_token(other) for other in others[:MOST_OTHERS]] if isinstance(others, list) else []
        token["top_logprobs"] = [other for other in kept if len(other["token"]) <= LONGEST_TOKEN]
    return {"content": tokens}


def _clean_token(entry: Any) -> dict[str, Any]:
    """Return a token's text and probability."""
    token, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, Mapping) else (None, None)
    return {
        "token": token if isinstance(token, str) else "",
        "logprob": logprob if isinstance(logprob, int | float) else None,
    }


async def check_choices(choices: list[Choice], guard: AnswerGuard) -> None:
    """Ask the guard about everything that the choices say: what may be rewritten together, and all else together."""
    for rewrite in (True, False):
        asked = [
            (choice, name, text)
            for choice in choices
            for name, text in list_said(choice, guard.request.tool_names).items()
            if (name == "content") == rewrite
        ]
        results = await guard.check([text for _, _, text in asked], rewrite=rewrite)
        for (choice, name, _), result in zip(asked, results, strict=True):
            choice.found[name] = result


def list_said(choice: Choice, tool_names: Collection[str]) -> dict[str, str]:
    """Return what a choice says, by the name of its part; parts without a word are left out, they say nothing."""
    said = dict(choice.texts)
    said |= {f"tool_calls[{place}]": describe_call(call, tool_names) for place, call in enumerate(choice.calls)}
    if choice.function:
        said["function_call"] = describe_call(choice.function, tool_names)
    return {name: text for name, text in said.items() if text.strip()}


def build_choice(choice: Choice, guard: AnswerGuard) -> dict[str, Any]:
    """Put a checked choice together again."""
    held = {name: result for name, result in choice.found.items() if is_held(result)}
    message: dict[str, Any] = {"role": "assistant", "content": choice.texts.get("content")}
    if "content" in held:
        # The answer as a whole is not what the model meant any more: no thoughts, no calls beside it.
        message["content"] = guard.choose_text(held["content"])
    else:
        message |= {name: text for name, text in choice.texts.items() if name not in held}
        calls = [call for place, call in enumerate(choice.calls) if f"tool_calls[{place}]" not in held]
        message |= {"tool_calls": calls} if calls else {}
        if choice.function and "function_call" not in held:
            message["function_call"] = choice.function
        if held and not (message["content"] or calls or message.get("function_call")):
            message["content"] = guard.choose_refusal(held.values())
    verdict = guard.describe(choice.found, choice.removed)
    built = {
        "index": choice.index,
        "message": message,
        "finish_reason": FILTERED if held else choice.finish_reason,
        "logprobs": None if held else choice.logprobs,
        "mllm_protector": verdict,
    }
    if built["logprobs"]:
        verdict["not_inspected"].append("logprobs")
    return built
