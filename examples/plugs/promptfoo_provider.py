"""A promptfoo provider: a guarded model's answers, and in `guardrails` what the guard decided.

promptfooconfig.yaml beside this file uses it. `MLLM_PROTECTOR_API_KEY` holds the key, where the server wants one. Only
Python's own library is needed.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8000/v1"
SECONDS = 600


def call_api(prompt: str, options: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """Ask the server for one answer.

    Args:
        prompt: A text, or messages as JSON, as promptfoo renders them.
        options: The provider's part of promptfoo's config: `base_url` (up to /v1), `model`, and any field of a chat
            request under `request`.
        context: promptfoo's variables; not used.

    Returns:
        What promptfoo expects: `output`, `tokenUsage` and `guardrails`; `error` when there is no answer.
    """
    config = options.get("config") or {}
    url = f"{(config.get('base_url') or DEFAULT_URL).rstrip('/')}/chat/completions"
    body = {**(config.get("request") or {}), "model": config.get("model", "model"), "messages": read_messages(prompt)}
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("MLLM_PROTECTOR_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - of the config
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:  # noqa: S310
            answer = json.load(reply)
    except urllib.error.HTTPError as error:
        return {"error": f"the server answered {error.code}: {error.read().decode(errors='replace')[:500]}"}
    except OSError as error:
        return {"error": f"{url} cannot be reached: {error}"}
    (choice, *_) = answer["choices"]
    usage = answer.get("usage") or {}
    return {
        "output": choice["message"].get("content") or "",
        "tokenUsage": {
            "prompt": usage.get("prompt_tokens", 0),
            "completion": usage.get("completion_tokens", 0),
            "total": usage.get("total_tokens", 0),
        },
        "finishReason": choice["finish_reason"],
        "guardrails": describe(choice),
    }


def read_messages(prompt: str) -> list[Any]:
    """Return the messages that a prompt stands for: itself as the user's, or those that it spells as JSON."""
    try:
        messages = json.loads(prompt)
    except ValueError:
        messages = None
    fine = isinstance(messages, list) and messages and all(isinstance(each, dict) for each in messages)
    return messages if fine else [{"role": "user", "content": prompt}]


def describe(choice: dict[str, Any]) -> dict[str, Any]:
    """Return promptfoo's guardrail fields: whether the model's own answer was held back, and why."""
    verdict = choice.get("mllm_protector") or {}
    held = choice["finish_reason"] == "content_filter"
    described: dict[str, Any] = {"flagged": held, "flaggedInput": False, "flaggedOutput": held}
    if held:
        score = verdict.get("harm_score")
        shown = "none" if score is None else f"{score:.3f}"
        described["reason"] = f"the guard: {verdict.get('action', 'held back')}, harm score {shown}"
    return described
