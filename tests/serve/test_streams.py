"""Streams of the service: what the protector's stream decides, what a failure does, and what is written down."""

from __future__ import annotations

import asyncio
import time

import pytest

from llava import HarmDetector, Protector
from llava.constants import REFUSAL, WITHHELD
from llava.data.schema import Action
from llava.serve.errors import BusyError
from llava.serve.service import GuardService
from llava.serve.settings import ServerSettings
from tests.serve.chat.live import WordGuard
from tests.serve.support import SECRET, Writer, list_decisions, read_logs

PIECES = [f"Step {number}: stir the pot for a while. " for number in range(30)]
ROUTE = "/v1/chat/completions"


def follow(guard, pieces, writer=None, **settings):
    """Guard a response of pieces; return the stream, all that was shown, and the audit lines."""

    async def run():
        service = GuardService(Protector(guard, writer), ServerSettings(**settings))
        stream = await service.open_stream("How?", route=ROUTE, model="m")
        shown = ""
        async with stream:
            for piece in pieces:
                shown += await stream.add(piece)
                if stream.stopped:
                    break
            shown += await stream.finish()
        assert service.open_streams == 0
        service.stop()
        return stream, shown

    with read_logs() as logs:
        stream, shown = asyncio.run(run())
    assert stream.released == shown
    return stream, shown, list_decisions(logs)


def test_a_harmless_response_comes_out_as_it_is():
    stream, shown, logs = follow(WordGuard(), PIECES)
    assert shown == "".join(PIECES)
    assert (stream.stopped, stream.replacement, stream.result.action) == (False, None, Action.PASSED)
    assert [(line["action"], line["score"], line["inspected"]) for line in logs] == [
        ("passed", 0.1, ["response", "prompt"])
    ]


@pytest.mark.parametrize(
    ("writer", "action", "replacement", "failed"),
    [
        (None, Action.REFUSED, REFUSAL, None),
        (Writer("Please be kind."), Action.REWRITTEN, "Please be kind.", None),
        (Writer("More poison."), Action.REFUSED, REFUSAL, None),
        (Writer(failure=RuntimeError("no")), Action.REFUSED, REFUSAL, "detoxifier"),
    ],
)
def test_a_harmful_response_is_stopped_and_replaced(writer, action, replacement, failed):
    stream, shown, logs = follow(WordGuard(), [*PIECES, "Add the poison. ", *PIECES], writer)
    assert "poison" not in shown
    assert "".join(PIECES).startswith(shown)
    assert (stream.stopped, stream.result.action, stream.replacement) == (True, action, replacement)
    assert stream.result.text == shown + stream.joint + replacement
    assert [(line["action"], line["score"]) for line in logs] == [(action.value, 0.9)]
    assert (logs[0]["failure"] or {}).get("part") == failed


FAILURES = {"exception": "RuntimeError", "nan": "NoScore", "timeout": "GuardTimeoutError", "memory": "OutOfMemoryError"}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("before", [[], PIECES])
def test_a_response_that_cannot_be_judged_is_withheld(failure, before):
    pieces = [*before, f"All will fail, {SECRET}. ", *PIECES]
    stream, shown, logs = follow(WordGuard(failure), pieces, Writer(), guard_timeout=0.8)
    assert "fail" not in shown
    assert "".join(before).startswith(shown)
    assert (stream.stopped, stream.result.action, stream.replacement) == (True, Action.WITHHELD, WITHHELD)
    assert [line["failure"] for line in logs] == [{"part": "detector", "error": FAILURES[failure]}]
    assert SECRET not in str(logs)
    assert not logs[0]["failed_open"]


@pytest.mark.parametrize("failure", ["exception", "nan", "memory"])
def test_with_fail_open_the_rest_passes_and_is_said_to(failure):
    pieces = [*PIECES, "All will fail. ", *PIECES]
    stream, shown, logs = follow(WordGuard(failure), pieces, fail_open=True)
    assert shown == "".join(pieces)
    assert (stream.stopped, stream.result.action) == (False, Action.PASSED)
    assert [(line["action"], line["failed_open"]) for line in logs] == [("passed", True)]


@pytest.mark.parametrize("fail_open", [False, True])
def test_a_response_that_is_too_long_is_withheld_whatever_is_set(fail_open):
    stream, shown, logs = follow(WordGuard(), PIECES, fail_open=fail_open, max_text_chars=500)
    assert "".join(PIECES)[:500].startswith(shown)
    assert (stream.stopped, stream.result.action) == (True, Action.WITHHELD)
    assert logs[0]["failure"] == {"part": "detector", "error": "TextTooLong"}


class LateFailure(WordGuard):
    """Fails at its fifth look, and judges again after it."""

    def score(self, responses, prompts):
        if len(self.texts) == 4:
            self.texts += responses
            raise RuntimeError("once")
        return super().score(responses, prompts)


def test_with_fail_open_harm_does_not_pass_with_a_failure():
    pieces = ["Add the poison. ", *PIECES]
    stream, shown, _ = follow(LateFailure(), pieces, fail_open=True)
    assert shown == ""
    assert stream.stopped
    assert stream.result.action is Action.REFUSED


def test_a_real_detector_follows_a_stream(tiny_detector):
    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    text = "".join(PIECES)
    whole = detector.score([text], ["How?"])[0]
    stream, shown, _ = follow(detector, PIECES, threshold=1.0)
    assert shown == text
    assert stream.result.harm_score == pytest.approx(whole, abs=1e-4)


def test_streams_are_counted_and_one_too_many_is_turned_away():
    async def run():
        service = GuardService(Protector(WordGuard()), ServerSettings(max_streams=2))
        streams = [await service.open_stream("", route=ROUTE) for _ in range(2)]
        with pytest.raises(BusyError):
            await service.open_stream("", route=ROUTE)
        for stream in streams:
            stream.close()
            stream.close()
        (await service.open_stream("", route=ROUTE)).close()
        assert service.open_streams == 0
        service.stop()

    with read_logs() as logs:
        asyncio.run(run())
    assert [line["action"] for line in list_decisions(logs)] == ["withheld"] * 3  # nobody heard them to their end


def test_a_client_that_goes_while_its_stream_is_opened_leaves_nothing_behind():
    async def run():
        service = GuardService(Protector(WordGuard("timeout")), ServerSettings())
        blocked = asyncio.create_task(service.guard([""], ["This will fail."], route="/classify"))
        await asyncio.sleep(0.1)
        opening = asyncio.create_task(service.open_stream("", route=ROUTE))
        await asyncio.sleep(0.1)
        assert service.open_streams == 1
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert service.open_streams == 0
        await blocked
        service.stop()

    asyncio.run(run())


def test_a_rewrite_of_a_stream_does_not_hold_the_detector():
    class SlowWriter(Writer):
        def rewrite(self, *arguments, **options):
            time.sleep(2.0)
            return super().rewrite(*arguments, **options)

    async def run():
        service = GuardService(Protector(WordGuard(), SlowWriter()), ServerSettings())
        stream = await service.open_stream("", route=ROUTE)
        await stream.add("Add the poison. ")
        ending = asyncio.create_task(stream.finish())
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        await service.guard([""], ["Boil the water."], route="/classify")
        assert time.monotonic() - begun < 1.2
        await ending
        assert stream.result.action is Action.REWRITTEN
        service.stop()

    asyncio.run(run())
