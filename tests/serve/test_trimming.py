"""Trimming behind the routes: through the common batches, within the time limit, and told without the text."""

from __future__ import annotations

import asyncio
import time

import pytest

from llava import Protector
from llava.constants import REFUSAL
from llava.data.schema import Action
from llava.serve.service import GuardService
from llava.serve.settings import ServerSettings
from tests.protector.repair.words import WordDetector
from tests.serve.support import Writer, list_decisions, read_logs, read_metric, serve_guard

BEFORE, HARM, BEHIND = (
    "Boil the water and salt it well. ",
    "Then stir the poison in. ",
    "Serve it warm with butter on top.",
)
TEXT = BEFORE + HARM + BEHIND
LITELLM = "/beta/litellm_basic_guardrail_api"


def guard(detector, texts, writer=None, rewrite=True, **settings):
    """Guard texts; return the results, the service and the audit lines."""

    async def run():
        service = GuardService(Protector(detector, writer), ServerSettings(**settings))
        results = await service.guard(["How?"] * len(texts), texts, route=LITELLM, rewrite=rewrite)
        service.stop()
        return results, service

    with read_logs() as logs:
        results, service = asyncio.run(run())
    return results, service, list_decisions(logs)


def test_a_text_is_trimmed_by_the_detectors_own_thread():
    detector = WordDetector()
    (result, passed), service, logs = guard(detector, [TEXT, BEFORE], Writer())
    assert (result.action, result.text, passed.action) == (Action.TRIMMED, BEFORE + BEHIND, Action.PASSED)
    assert detector.threads == {service.detector.thread.ident}
    assert [line["action"] for line in logs] == ["trimmed", "passed"]
    assert logs[0]["removed"] == [[len(BEFORE), len(BEFORE + HARM)]]
    assert "removed" not in logs[1]
    assert "poison" not in str(logs)


@pytest.mark.parametrize("settings", [{"trim": False}, {"action": "refuse"}, {"action": "block"}, {"rewrite": False}])
def test_it_is_for_the_operator_to_say(settings):
    detector = WordDetector()
    (result,), _, _ = guard(detector, [TEXT], **settings)
    assert (result.action, result.text, detector.explained) == (Action.REFUSED, REFUSAL, [])


def test_one_that_takes_too_long_is_refused():
    class Slow(WordDetector):
        def explain(self, prompt, response):
            time.sleep(0.5)
            return super().explain(prompt, response)

    begun = time.monotonic()
    (result,), _, logs = guard(Slow(), [TEXT], Writer(), guard_timeout=0.3)
    assert (result.action, result.text) == (Action.REFUSED, REFUSAL)
    assert result.failure.error == "GuardTimeoutError"
    assert logs[0]["failure"] == {"part": "detector", "error": "GuardTimeoutError"}
    assert time.monotonic() - begun < 20


def test_a_route_gives_back_what_is_left_and_counts_it():
    with serve_guard(WordDetector()) as live:
        body = live.http.post(LITELLM, json={"input_type": "response", "texts": [TEXT]}).json()
        assert (body["action"], body["texts"]) == ("GUARDRAIL_INTERVENED", [BEFORE + BEHIND])
        assert read_metric(live, "mllm_protector_decisions_total", route=LITELLM, action="trimmed") == 1
        flagged = live.http.post("/v1/moderations", json={"input": TEXT}).json()["results"][0]["flagged"]
        assert flagged is True
