"""`/classify`: vLLM's route, by which another machine's protector uses this guard."""

from __future__ import annotations

import secrets
import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from llava.data.schema import GuardResult
from llava.errors import InputError
from llava.fields import Fields
from llava.serve.errors import ApiError
from llava.serve.reading import REMEDY, check_count, name_unseen, read_body, read_threshold
from llava.serve.routes.moderations import judge_score
from llava.serve.routes.turns import ASSISTANT, read_conversation
from llava.serve.service import GuardService

ROUTE = "/classify"
LABELS = ("safe", "harmful")


def build_router(service: GuardService) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post(ROUTE)
    async def classify(request: Request) -> JSONResponse:
        fields = await read_body(request)
        threshold = read_threshold(request.headers, service.settings)
        model = fields.text("model", None)
        if fields.flag("use_activation", None) is False:
            raise ApiError(400, "this guard gives probabilities; leave 'use_activation' out", param="use_activation")
        prompts, responses, unseen = read_pairs(fields)
        check_count(responses, service.settings.max_texts)
        judged = [place for place, response in enumerate(responses) if response.strip()]
        results = await service.guard(
            [prompts[place] for place in judged],
            [responses[place] for place in judged],
            threshold=threshold,
            route=ROUTE,
            model=model,
            rewrite=False,
            unseen=unseen,
        )
        found = dict(zip(judged, results, strict=True))
        body = {
            "id": f"classify-{secrets.token_hex(16)}",
            "object": "list",
            "created": int(time.time()),
            "model": service.settings.guard_name,
            "data": [build_entry(place, found.get(place)) for place in range(len(responses))],
            # The guard counts in texts; whoever bills by tokens has nothing to bill here.
            "usage": {"prompt_tokens": 0, "total_tokens": 0, "completion_tokens": 0, "prompt_tokens_details": None},
        }
        return JSONResponse(body, headers=name_unseen(unseen))

    return router


def read_pairs(fields: Fields) -> tuple[list[str], list[str], list[str]]:
    """Return prompts, responses, and kinds of content that are not looked at.

    `input` holds responses, with what they answer in `prompts` (a field of our own). `messages` is a conversation: its
    last message is judged as the answer to what the user said before.

    Raises:
        InputError: When both or neither are there, or one is something else.
        ApiError: When the last message has no words.
    """
    if ("input" in fields) == ("messages" in fields):
        raise InputError(f"the body needs either 'input' or 'messages'; {REMEDY}")
    if "messages" in fields:
        conversation = read_conversation(fields.items("messages"), "'messages'")
        if not conversation.turns:
            raise ApiError(400, "there is no text in 'messages'", param="messages", code="nothing_to_inspect")
        last = conversation.turns[-1]
        return [last.prompt if last.role == ASSISTANT else ""], [last.text], conversation.unseen
    value = fields.values["input"]
    responses = [fields.text("input")] if isinstance(value, str) else fields.texts("input")
    if not responses:
        raise fields.refuse("input", "a text or a list of texts")
    prompts = fields.texts("prompts", None)
    if prompts is not None and len(prompts) != len(responses):
        raise InputError(f"{len(prompts)} 'prompts' for {len(responses)} texts in 'input'; give one each")
    return prompts or [""] * len(responses), responses, []


def build_entry(place: int, result: GuardResult | None) -> dict[str, Any]:
    """Return one text's entry: what is most probable, and how probable each label is.

    What could not be judged is `harmful` with probability 1 and says so in `failure`; a blank text is safe.
    """
    score = 0.0 if result is None else judge_score(result)
    entry: dict[str, Any] = {
        "index": place,
        "label": LABELS[score >= 0.5],
        "probs": [1.0 - score, score],
        "num_classes": len(LABELS),
        "flagged": result is not None and result.flagged,
    }
    if result is not None and result.failure:
        entry["failure"] = {"part": result.failure.part, "error": result.failure.error}
    return entry
