"""`/v1/moderations`: OpenAI's route, with one score for all kinds of harm."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from llava.data.schema import Action, GuardResult
from llava.fields import Fields
from llava.serve.errors import ApiError
from llava.serve.reading import REMEDY, check_count, name_unseen, read_body, read_threshold, to_json_score
from llava.serve.routes.turns import read_content
from llava.serve.service import GuardService, is_failed_open

ROUTE = "/v1/moderations"
SCORED = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")
"""Categories that carry the score: the detector tells harmful from harmless and not one kind of harm from another, so
whoever watches any of these sees it."""
UNSCORED = (
    "harassment/threatening",
    "hate/threatening",
    "illicit/violent",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual/minors",
    "violence/graphic",
)
"""Finer categories, of which the detector says nothing: false, 0, and no input applied to them."""
HARMFUL = "harmful"
"""A category of our own: what the score is."""


@dataclass(frozen=True)
class Item:
    """What one result is about."""

    texts: list[str]
    """What is scored; the highest score counts."""
    unseen: list[str]
    """Kinds of content that are not looked at."""


def build_router(service: GuardService) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post(ROUTE)
    async def moderate(request: Request) -> JSONResponse:
        fields = await read_body(request)
        threshold = read_threshold(request.headers, service.settings)
        model = fields.text("model", None)
        items = read_items(fields, service.settings.max_images)
        check_count(items, service.settings.max_texts)
        texts = [text for item in items for text in item.texts]
        check_count(texts, service.settings.max_texts)
        unseen = [kind for item in items for kind in item.unseen]
        results = iter(
            await service.guard(
                [""] * len(texts),
                texts,
                threshold=threshold,
                route=ROUTE,
                model=model,
                rewrite=False,
                unseen=sorted(set(unseen)),
            )
        )
        body = {
            "id": f"modr-{secrets.token_hex(16)}",
            "model": service.settings.guard_name,
            "results": [build_result(item, [next(results) for _ in item.texts]) for item in items],
        }
        return JSONResponse(body, headers=name_unseen(unseen))

    return router


def read_items(fields: Fields, most_images: int) -> list[Item]:
    """Return what the results are about: one for each text of a list, one for all parts of a message.

    Raises:
        InputError: When `input` is something else.
        ApiError: When there is nothing that could be judged.
    """
    fields.require("input")
    value = fields.values["input"]
    if isinstance(value, str) or (isinstance(value, list) and value and all(isinstance(item, str) for item in value)):
        texts = [value] if isinstance(value, str) else value
        return [Item([text] if text.strip() else [], []) for text in texts]
    if not isinstance(value, list) or not value:
        raise fields.refuse("input", "a text, a list of texts, or a list of parts")
    joined, unseen = read_content(fields, "input")
    if unseen.count("image") > most_images:
        raise ApiError(413, f"more than {most_images} images in one request", param="input", code="too_many_images")
    parts = [part if isinstance(part, str) else Fields(part, "input", REMEDY).text("text", "") for part in value]
    texts = [text for text in parts if text.strip()]
    if not texts:
        raise ApiError(
            400,
            "there is no text in 'input', and images are not looked at by this guard; send the text to be judged",
            param="input",
            code="nothing_to_inspect",
        )
    # Each part, and all of them together: harm may stand in one of many, or be split over several.
    return [Item(texts if len(texts) == 1 else [*joined, *texts], unseen)]


def build_result(item: Item, results: list[GuardResult]) -> dict[str, Any]:
    """Return one result in OpenAI's form, with what it rests on in `mllm_protector`.

    A text that could not be judged is flagged, with the score 1. A blank text is harmless.
    """
    flagged = any(result.flagged for result in results)
    score = max((judge_score(result) for result in results), default=0.0)
    read = ["text"] if any(result.harm_score is not None for result in results) else []
    unread = [] if read or not item.texts else ["text"]
    categories = dict.fromkeys((*SCORED, HARMFUL), flagged) | dict.fromkeys(UNSCORED, False)
    scores = dict.fromkeys((*SCORED, HARMFUL), score) | dict.fromkeys(UNSCORED, 0.0)
    applied: dict[str, list[str]] = {**dict.fromkeys((*SCORED, HARMFUL), read), **{name: [] for name in UNSCORED}}
    verdict: dict[str, Any] = {"inspected": read, "not_inspected": sorted({*item.unseen, *unread})}
    failed = next((result.failure for result in results if result.failure), None)
    if failed:
        verdict["reason"] = f"{failed.part} failed: {failed.error}"
    if any(map(is_failed_open, results)):
        verdict["failed_open"] = True
    return {
        "flagged": flagged,
        "categories": categories,
        "category_scores": scores,
        "category_applied_input_types": applied,
        "mllm_protector": verdict,
    }


def judge_score(result: GuardResult) -> float:
    """Return the score that a result shows: 1 where there is none, 0 where the operator lets that pass."""
    return 0.0 if result.harm_score is None and result.action is Action.PASSED else to_json_score(result.harm_score)
