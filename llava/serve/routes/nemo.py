"""`/v1/guardrail/checks`: the route of NeMo Guardrails' service, over all turns of a conversation."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from llava.data.schema import GuardResult
from llava.serve.errors import ApiError
from llava.serve.reading import check_count, name_unseen, read_body, read_threshold
from llava.serve.routes.moderations import judge_score
from llava.serve.routes.turns import ASSISTANT, Turn, read_conversation
from llava.serve.service import GuardService, is_failed_open

ROUTE = "/v1/guardrail/checks"
INPUT, OUTPUT = "mllm-protector input", "mllm-protector output"
"""The rails: what users (and systems and tools) say, and what models answer."""
BLOCKED, SUCCESS = "blocked", "success"


def build_router(service: GuardService) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post(ROUTE)
    async def check(request: Request) -> JSONResponse:
        fields = await read_body(request)
        threshold = read_threshold(request.headers, service.settings)
        model = fields.text("model", None)
        fields.mapping("guardrails", None)
        conversation = read_conversation(fields.items("messages"), "'messages'")
        if not conversation.turns:
            raise ApiError(400, "there is no text in 'messages'", param="messages", code="nothing_to_inspect")
        prompts_too = service.settings.check_prompts
        turns = [turn for turn in conversation.turns if prompts_too or turn.role == ASSISTANT]
        unseen = conversation.unseen if prompts_too else sorted({*conversation.unseen, "prompt"})
        check_count(turns, service.settings.max_texts)
        results = await service.guard(
            [turn.prompt for turn in turns],
            [turn.text for turn in turns],
            threshold=threshold,
            route=ROUTE,
            model=model,
            rewrite=False,
            unseen=unseen,
        )
        return JSONResponse(build_answer(turns, results, unseen), headers=name_unseen(unseen))

    return router


def build_answer(turns: list[Turn], results: list[GuardResult], unseen: list[str]) -> dict[str, Any]:
    """Return what the rails say, and in `guardrails_data` what that rests on, without any text."""
    rails = {INPUT: False, OUTPUT: False} if any(turn.role != ASSISTANT for turn in turns) else {OUTPUT: False}
    judged = []
    for index, (turn, result) in enumerate(zip(turns, results, strict=True)):
        rail = OUTPUT if turn.role == ASSISTANT else INPUT
        rails[rail] |= result.flagged
        judged.append(
            {
                "index": index,
                "rail": rail,
                "flagged": result.flagged,
                "harm_score": judge_score(result),
                "failure": f"{result.failure.part} failed: {result.failure.error}" if result.failure else None,
                "failed_open": is_failed_open(result),
            }
        )
    return {
        "status": BLOCKED if any(rails.values()) else SUCCESS,
        "rails_status": {rail: {"status": BLOCKED if blocked else SUCCESS} for rail, blocked in rails.items()},
        "guardrails_data": {"log": {"activated_rails": list(rails)}, "turns": judged, "not_inspected": unseen},
    }
