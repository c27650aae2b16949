"""What the page does, without a page: tiny real models, and a scripted upstream where texts must be foreseen."""

from __future__ import annotations

import threading
import time

import pytest
from PIL import Image

from llava import Protector, load_mllm
from llava.constants import REFUSAL, WITHHELD
from llava.data.schema import Action
from llava.serve.terminal.speakers import LocalSpeaker, RemoteSpeaker
from llava.serve.web.answering import STEP, Answering
from llava.serve.web.curve import ScoreCurve
from llava.serve.web.exchange import Exchange, find_spans
from tests.serve.chat.live import WordGuard

QUESTION = "What is on this picture?"
TOKENS = 24


@pytest.fixture(scope="module")
def protector(tiny_detector):
    return Protector.from_pretrained(tiny_detector, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def local(tiny_llava, protector):
    speaker = LocalSpeaker(load_mllm(tiny_llava, dtype="float32", device="cpu"), max_new_tokens=TOKENS, temperature=0)
    return Answering(speaker, protector)


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (20, 16), "blue").save(tmp_path / "blue.png")
    return tmp_path / "blue.png"


def behind(upstream, guard, model="echo"):
    """Return an asker whose model says what the question says."""
    speaker = RemoteSpeaker(upstream.url, None, model, max_new_tokens=TOKENS, temperature=0)
    return Answering(speaker, guard if isinstance(guard, Protector) else Protector(guard))


def last(moments) -> Exchange:
    *_, end = moments
    return end


def test_both_answers_and_the_score_of_every_beginning(local, protector, picture):
    moments = list(local.ask(QUESTION, str(picture), 1.0))
    first, end = moments[0], moments[-1]
    assert (first.writing, first.raw, first.with_image) == (True, "", True)
    raw = local.speaker.model.generate([QUESTION], [Image.open(picture)], max_new_tokens=TOKENS)[0]
    assert (end.raw, end.released, end.replacement, end.result.action) == (raw, raw, "", Action.PASSED)
    assert (end.writing, end.flagged, end.error) == (False, False, "")
    assert len(end.points) > 5
    assert end.points[-1].place == len(raw)
    wanted = protector.detector.score([raw[: point.place] for point in end.points], [QUESTION] * len(end.points))
    assert [point.score for point in end.points] == pytest.approx(wanted, abs=1e-4)
    assert [point.place for point in end.points] == sorted({point.place for point in end.points})
    assert all(raw.startswith(moment.raw) and raw.startswith(moment.released) for moment in moments)


def test_a_flagged_answer_is_refused_and_its_span_found(local):
    end = last(local.ask(QUESTION, None, 1e-9 + STEP))
    assert end.flagged
    assert end.result.action is Action.REFUSED
    assert (end.released + end.replacement).endswith(REFUSAL)
    assert end.raw
    assert REFUSAL not in end.raw
    spans = find_spans(end.tokens, end.threshold)
    assert spans
    assert all(0 <= span.start < span.end <= len(end.raw) for span in spans)


def test_another_threshold_is_what_it_would_have_been_and_asks_nobody(upstream, protector):
    asker = behind(upstream, protector)
    question = "How do I cook rice for twelve people? " * 8
    score = protector.detector.score([question], [question])[0]
    before = last(asker.ask(question, None, 1.0))
    asked = len(upstream.log())
    for threshold in (score / 2, (1 + score) / 2):
        moments = list(asker.judge(before, threshold))
        assert [moment.judging for moment in moments] == [True, False]
        assert (moments[0].released, moments[0].replacement, moments[0].result) == ("", "", None)
        assert len(upstream.log()) == asked
        fresh = last(asker.ask(question, None, threshold))
        asked += 1
        assert moments[-1].result == fresh.result
        assert (moments[-1].released, moments[-1].replacement) == (fresh.released, fresh.replacement)
        assert moments[-1].flagged == (threshold < score)
    assert list(asker.judge(before, 1.0)) == []


def test_the_slider_keeps_the_guards_own_threshold_and_never_is_0(upstream):
    asker = behind(upstream, Protector(WordGuard(), threshold=0.12345))
    chosen = [asker.choose_threshold(value) for value in (0.123, 0.125, 0.0, 1, 7)]
    assert chosen == [0.12345, 0.125, STEP, 1, 1]


def test_harm_in_the_middle(upstream):
    end = last(behind(upstream, WordGuard()).ask("bread " * 120 + "poison", None, 0.5))
    assert end.released.startswith("bread")
    assert end.released.strip() != ""
    assert "poison" not in end.released + end.replacement
    assert "poison" in end.raw
    assert end.replacement == f"\n\n{REFUSAL}"
    assert end.tokens == ()  # this guard explains nothing
    assert find_spans(end.tokens, 0.5) == []


def test_a_guard_that_reads_everything_anew_is_asked_seldom():
    guard = WordGuard()
    curve = ScoreCurve(guard, "Why?")
    for _ in range(400):
        curve.add(["word "])
    curve.finish()
    assert 10 < len(curve.points) == len(guard.texts) < 30
    assert curve.points[-1].place == 2000


@pytest.mark.parametrize(
    ("failure", "reason"), [("exception", "detector failed: RuntimeError"), ("nan", "no finite harm score")]
)
def test_what_cannot_be_judged_is_withheld(upstream, failure, reason):
    end = last(behind(upstream, WordGuard(failure)).ask("This must fail.", None, 0.5))
    assert (end.released, end.replacement, end.result.action) == ("", WITHHELD, Action.WITHHELD)
    assert end.result.reason.startswith(reason)
    assert end.flagged
    assert end.points == ()


def test_what_goes_wrong_is_one_line(upstream, tmp_path):
    asker = behind(upstream, WordGuard())
    (tmp_path / "no.png").write_text("no picture")
    cases = {
        "there is no question": (" ", None),
        "at most 20000 are taken": ("x" * 20_001, None),
        "the image is not": ("Why?", str(tmp_path / "no.png")),
        "the image does not exist": ("Why?", str(tmp_path / "none.png")),
    }
    for words, (question, image) in cases.items():
        end = last(asker.ask(question, image, 0.5))
        assert words in end.error
        assert str(tmp_path) not in end.error
        assert not end.writing
        assert end.result is None
    gone = Answering(
        RemoteSpeaker("http://127.0.0.1:9", None, "echo", max_new_tokens=5, temperature=0), asker.protector
    )
    assert "the upstream failed" in last(gone.ask("Why?", None, 0.5)).error


def test_an_answer_that_breaks_off_is_judged_as_far_as_it_goes(upstream):
    from tests.serve.chat.live import render_chunk

    part = render_chunk({"index": 0, "delta": {"content": "Take the poison "}, "finish_reason": None})
    upstream.put("broken", parts=[part], then="break")
    end = last(behind(upstream, WordGuard(), "broken").ask("Why?", None, 0.5))
    assert end.error
    assert end.flagged
    assert end.result.action is Action.REFUSED


def test_the_model_says_nothing(upstream):
    upstream.put("silent", parts=["data: [DONE]\n\n"])
    end = last(behind(upstream, WordGuard(), "silent").ask("Why?", None, 0.5))
    assert (end.raw, end.result, end.error, end.flagged) == ("", None, "", False)


def test_who_stops_reading_stops_the_model(upstream):
    asker = behind(upstream, WordGuard(), "slow")
    moments = asker.ask("word " * 400, None, 0.5)
    while not (now := next(moments)).raw:
        pass
    moments.close()
    end = time.monotonic() + 10
    while any(thread.name == "answer" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert now.writing
    assert now.result is None
    whole = asker.finish(now)
    assert (whole.writing, whole.raw, whole.released) == (False, now.raw, now.raw)
    assert whole.result.action is Action.PASSED
    assert list(asker.judge(now, 0.9)) == []  # while it is written the slider waits


def test_visitors_do_not_mix(upstream):
    asker = behind(upstream, WordGuard(), "slow")
    asked = {name: asker.ask(f"{name} " * 20, None, 0.5) for name in ("bread", "butter", "poison")}
    ends: dict[str, Exchange] = {}
    while asked:
        for name, moments in list(asked.items()):
            if (now := next(moments, None)) is None:
                del asked[name]
            else:
                ends[name] = now
    assert {name: set(end.raw.split()) for name, end in ends.items()} == {name: {name} for name in ends}
    assert [end.result.action.value for end in ends.values()] == ["passed", "passed", "refused"]
