"""A hook of the LiteLLM proxy: what its guardrails do not cover does not get out. litellm.yaml names it.

As tried with litellm 1.108, a guardrail's word counts in answers and streams of `/v1/chat/completions`, and not
- in streams of other routes (`/v1/completions`, `/v1/responses`, `/v1/messages`): rewrites are dropped;
- for thoughts (`reasoning_content`) and the words in `logprobs`: it is not shown them;
- for calls of tools in a stream: it is asked when they are out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

GUARDED_CALLS = ("completion", "acompletion")
"""Kinds of calls that are let through, by LiteLLM's names: chat completions. Add others once you have tried them."""
KEPT_IN_CHOICES = {"index", "finish_reason", "message", "delta"}
KEPT_IN_ANSWERS = {"role", "content", "tool_calls"}
KEPT_IN_STREAMS = {"role", "content"}


class GuardedOnly(CustomLogger):
    """Lets through what is guarded, and nothing else."""

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: dict, call_type: str) -> dict:
        """Take a request before anything is done with it.

        Raises:
            HTTPException: When its answer would not be guarded.
        """
        if call_type not in GUARDED_CALLS:
            refuse(404, "only /v1/chat/completions is guarded here; other routes are refused")
        if data.get("stream") and (data.get("tools") or data.get("functions")):
            refuse(400, "calls of tools are not guarded in a stream; ask without 'stream'")
        return data

    async def async_post_call_success_hook(self, data: dict, user_api_key_dict: Any, response: Any) -> Any:
        """Take an answer, and leave out what the guard was not shown."""
        return keep_guarded(response, KEPT_IN_ANSWERS)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict
    ) -> AsyncIterator[Any]:
        """Take a stream piece by piece, and leave out what the guard was not shown in time."""
        async for chunk in response:
            yield keep_guarded(chunk, KEPT_IN_STREAMS)


def keep_guarded(answer: Any, kept: set[str]) -> Any:
    """Empty all fields of an answer, or of a piece of one, but those that are kept."""
    for choice in getattr(answer, "choices", None) or []:
        empty(choice, KEPT_IN_CHOICES)
        for part in (getattr(choice, "message", None), getattr(choice, "delta", None)):
            if part is not None:
                empty(part, kept)
    return answer


def empty(part: Any, kept: set[str]) -> None:
    """Set all fields to None but those that are kept."""
    for name in set(part.model_dump()) - kept:
        setattr(part, name, None)


def refuse(status: int, message: str) -> None:
    """End a request.

    Raises:
        HTTPException: Always.
    """
    raise HTTPException(status_code=status, detail={"error": message})


guarded = GuardedOnly()
