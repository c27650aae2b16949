"""`/beta/litellm_basic_guardrail_api`: the guard of a LiteLLM proxy, streams included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from llava.constants import REFUSAL
from llava.data.schema import Action, GuardResult
from llava.fields import Fields
from llava.protector.guards.base import check_threshold
from llava.serve.context import get_context
from llava.serve.errors import ApiError
from llava.serve.reading import check_count, list_items, name_unseen, read_body, read_threshold
from llava.serve.routes.call_memory import Answer, Call, CallMemory
from llava.serve.routes.turns import ASSISTANT, Turn, read_calls, read_conversation
from llava.serve.service import GuardService
from llava.serve.settings import BLOCK

ROUTE = "/beta/litellm_basic_guardrail_api"
BLOCKED, CHANGED, NONE = "BLOCKED", "GUARDRAIL_INTERVENED", "NONE"
BREAK = "\n\n"
"""Between what was let out of a growing text and the refusal that ends it."""


@dataclass(frozen=True)
class Question:
    """A request of the proxy, read."""

    is_response: bool
    """Whether it is about what a model answers; else about what a user writes."""
    call_id: str | None
    """The call that it is about."""
    model: str | None
    """The model that was asked."""
    texts: list[str]
    """The texts, in the order in which they go back."""
    turns: list[Turn]
    """The conversation, where it came along."""
    prompt: str
    """What the user said last, where it came along."""
    calls: list[str]
    """What calls of tools say."""
    unseen: list[str]
    """What came along and is not looked at."""
    threshold: float | None
    """What the request asks for."""


def build_router(service: GuardService) -> APIRouter:
    """Return the route."""
    router = APIRouter()
    memory = CallMemory()

    @router.post(ROUTE)
    async def check(request: Request) -> JSONResponse:
        threshold = read_threshold(request.headers, service.settings)
        question = read_question(await read_body(request), threshold, service)
        check_count([*question.texts, *question.turns, *question.calls], service.settings.max_texts)
        call = memory.find(get_context().client, question.call_id)
        async with call.lock:
            if question.is_response:
                body = await check_response(service, question, call)
            else:
                body = await check_request(service, question, call)
            memory.keep(call)
        body["not_inspected"] = question.unseen
        return JSONResponse(body, headers=name_unseen(question.unseen))

    return router


def read_question(fields: Fields, threshold: float | None, service: GuardService) -> Question:
    """Read a request of the proxy.

    Raises:
        InputError: When a field is of another type.
        ApiError: When it has too many images, or asks for a threshold where that is not allowed.
    """
    is_response = fields.text("input_type", choices=("request", "response")) == "response"
    conversation = read_conversation(list_items(fields, "structured_messages"), "'structured_messages'")
    texts = fields.texts("texts", None) or []
    images = list_items(fields, "images")
    if len(images) > service.settings.max_images:
        raise ApiError(413, f"more than {service.settings.max_images} images", param="images", code="too_many_images")
    calls = read_calls(list_items(fields, "tool_calls"), "the body")
    unseen = {*conversation.unseen, *(["image"] if images else [])}
    if list_items(fields, "tools"):
        unseen.add("tool")
    if not is_response and not service.settings.check_prompts:
        unseen.add("prompt")
    return Question(
        is_response=is_response,
        call_id=fields.text("litellm_call_id", None),
        model=fields.text("model", None),
        texts=texts,
        turns=conversation.turns,
        prompt=conversation.prompt or ("" if is_response else "\n".join(texts)),
        calls=[text for text in calls if text],
        unseen=sorted(unseen),
        threshold=read_extra_threshold(fields, service) or threshold,
    )


def read_extra_threshold(fields: Fields, service: GuardService) -> float | None:
    """Return the threshold that the proxy's config gives for this guard (`additional_provider_specific_params`).

    Raises:
        ApiError: When requests may not ask for one.
    """
    extra = Fields(fields.mapping("additional_provider_specific_params", None) or {}, fields.where, fields.remedy)
    value = extra.number("threshold", None)
    if value is None:
        return None
    if not service.settings.allow_header_threshold:
        raise ApiError(403, "'threshold' is not allowed on this server; leave it out", code="threshold_not_allowed")
    return check_threshold(value, "'threshold'")


async def check_request(service: GuardService, question: Question, call: Call) -> dict[str, Any]:
    """Remember what a user asks, and judge all that the conversation says so far."""
    call.prompt = question.prompt
    if not service.settings.check_prompts:
        return build_answer(NONE, question.texts)
    known = {turn.text for turn in question.turns}
    turns = [*question.turns, *(Turn("user", text, "") for text in question.texts if text not in known)]
    results = await judge(service, question, turns, rewrite=False)
    reason = explain_block(results)
    return build_answer(BLOCKED if reason else NONE, question.texts, reason)


async def check_response(service: GuardService, question: Question, call: Call) -> dict[str, Any]:
    """Judge the texts of an answer as they stand, and return each so that it goes on from what was let out before."""
    prompt = call.prompt or question.prompt
    texts, answers = question.texts, [call.answers.setdefault(i, Answer()) for i in range(len(question.texts))]
    going = [i for i, answer in enumerate(answers) if not answer.stopped and texts[i].strip()]
    if any(not follows(texts[i], answers[i].released) for i in going):
        return build_answer(BLOCKED, texts, "the text does not go on from what was checked before")
    rest = [Turn(ASSISTANT, text, prompt) for text in question.calls if text.strip()]
    results = await judge(service, question, [Turn(ASSISTANT, texts[i], prompt) for i in going], rewrite=True)
    reason = explain_block(await judge(service, question, rest, rewrite=False))
    rule = service.find_rule(ROUTE, question.model, question.threshold)
    if rule.action == BLOCK or any(result.action is Action.WITHHELD for result in results):
        reason = reason or explain_block(results)
    if reason:
        return build_answer(BLOCKED, texts, reason)
    for i, result in zip(going, results, strict=True):
        release(answers[i], result)
    returned = [text if not answer.released else answer.released for text, answer in zip(texts, answers, strict=True)]
    return build_answer(NONE if returned == texts else CHANGED, returned)


def follows(text: str, released: str) -> bool:
    """Tell whether a growing text agrees with what was let out of it."""
    return text.startswith(released) or released.startswith(text)


def release(answer: Answer, result: GuardResult) -> None:
    """Let out what was decided about a text: more of it, or what ends it."""
    if result.action is Action.PASSED:
        if len(result.text) > len(answer.released):
            answer.released = result.text
        return
    # A rewrite is of the whole text; once a part of it is out, only a refusal can follow.
    answer.released = f"{answer.released}{BREAK}{REFUSAL}" if answer.released else result.text
    answer.stopped = True


async def judge(
    service: GuardService, question: Question, turns: Sequence[Turn], *, rewrite: bool
) -> list[GuardResult]:
    """Ask the guard about texts."""
    if not turns:
        return []
    return await service.guard(
        [turn.prompt for turn in turns],
        [turn.text for turn in turns],
        threshold=question.threshold,
        route=ROUTE,
        model=question.model,
        rewrite=rewrite,
        unseen=question.unseen,
    )


def explain_block(results: Sequence[GuardResult]) -> str | None:
    """Return why a call is blocked, without a word of its text; None when nothing is held against it."""
    held = [result for result in results if result.action is not Action.PASSED]
    if not held:
        return None
    failed = next((result.failure for result in held if result.action is Action.WITHHELD and result.failure), None)
    if failed:
        return f"withheld: it could not be checked for safety ({failed.part} failed: {failed.error})"
    return "the text was judged harmful"


def build_answer(action: str, texts: list[str], reason: str | None = None) -> dict[str, Any]:
    """Return the answer to the proxy; a blocked text does not come back."""
    return {"action": action, "blocked_reason": reason, "texts": [] if action == BLOCKED else texts, "images": []}
