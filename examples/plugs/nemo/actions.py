"""The action of the rails in rails.co: it asks `mllm-protector serve` about one text."""

from __future__ import annotations

import os
from typing import Any

import httpx
from nemoguardrails.actions import action
from nemoguardrails.actions.rail_outcome import RailOutcome

SECONDS = 60.0


@action(name="mllm_protector_check", is_system_action=True)
async def mllm_protector_check(
    user_message: str | None = None, bot_message: str | None = None, **_: Any
) -> RailOutcome:
    """Judge what the model says, as the answer to what the user said; without an answer, what the user said.

    A guard that does not answer, or could not judge the text, means that the text is blocked.
    """
    text, prompt = (user_message, "") if bot_message is None else (bot_message, user_message)
    if not (text or "").strip():
        return RailOutcome.allow()
    url = os.environ.get("MLLM_PROTECTOR_URL", "http://127.0.0.1:8000").rstrip("/")
    key = os.environ.get("MLLM_PROTECTOR_API_KEY")
    try:
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            body = {"input": [text], "prompts": [prompt or ""]}
            reply = await client.post(f"{url}/classify", json=body, headers=headers)
        reply.raise_for_status()
        (entry,) = reply.json()["data"]
        flagged, score = bool(entry["flagged"]), float(entry["probs"][1])
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return RailOutcome.failure(reason=f"the guard did not judge the text ({type(error).__name__})")
    if flagged:
        return RailOutcome.block(reason="the text was judged harmful", metadata={"harm_score": score})
    return RailOutcome.allow(metadata={"harm_score": score})
