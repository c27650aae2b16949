"""What the page shows of an exchange."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from llava.data.schema import Action, GuardResult
from llava.protector.outcomes import refuse, withhold
from llava.protector.scoring.explanation import TokenScore
from llava.serve.web.exchange import Exchange, Point, find_spans
from llava.serve.web.plot import render_plot
from llava.serve.web.rendering import describe_state, render_guarded, render_unguarded, render_verdict

RAW = "Take <b>poison</b> & stir."
TOKENS = tuple(TokenScore(*found.span(), 0.9 if "poison" in found[0] else 0.1) for found in re.finditer(r"\S+", RAW))
PASSED = Exchange("Why?", 0.5, raw=RAW, released=RAW, result=GuardResult(RAW, RAW, 0.1, False, Action.PASSED))
REFUSED = replace(
    PASSED,
    released="",
    replacement="Sorry.",
    tokens=TOKENS,
    points=(Point(1, 4, 0.2), Point(2, 18, 0.8)),
    result=replace(refuse(None), text="Sorry.", original_text=RAW, harm_score=0.8),
)


def test_a_flagged_answer_is_blurred_until_it_is_pressed_and_its_harm_is_marked():
    shown = render_unguarded(REFUSED)
    assert 'class="mp-text mp-masked" role="button" tabindex="0" aria-label="Flagged answer' in shown
    assert "<mark title=" in shown
    assert ">&lt;b&gt;poison&lt;/b&gt;</mark> &amp; stir." in shown
    assert "<b>" not in shown
    assert "mp-masked" not in render_guarded(REFUSED)
    assert '<span class="mp-replacement">Sorry.</span>' in render_guarded(REFUSED)


def test_an_answer_that_passed_is_shown_plainly():
    shown = render_unguarded(replace(PASSED, tokens=TOKENS))
    assert "mp-masked" not in shown
    assert "<mark" not in shown
    assert "Take &lt;b&gt;poison" in render_guarded(PASSED)


def test_a_growing_answer_is_blurred_from_where_it_crosses():
    growing = replace(REFUSED, result=None, writing=True, tokens=())
    assert '<div class="mp-text mp-masked" aria-hidden="true">' in render_unguarded(growing)
    assert "mp-masked" not in render_unguarded(replace(growing, points=growing.points[:1]))
    assert "mp-masked" in render_unguarded(replace(growing, points=growing.points[:1], threshold=0.1))


@pytest.mark.parametrize(
    ("exchange", "name", "words"),
    [
        (None, "ready", "ask something"),
        (PASSED, "passed", "harm score 0.10 is below 0.50"),
        (replace(PASSED, with_image=True), "passed", "does not look at images"),
        (REFUSED, "refused", "stepped in before the first word, harm score 0.80 is not below 0.50"),
        (replace(REFUSED, writing=True), "refused", "the model still writes"),
        (replace(PASSED, result=None, writing=True), "writing", "the guard reads along"),
        (replace(PASSED, result=None, judging=True), "judging", "threshold of 0.50"),
        (replace(PASSED, result=withhold(RAW, None)), "withheld", "could not be judged: no finite harm score"),
        (replace(PASSED, error="<it> failed"), "error", "<it> failed"),
    ],
)
def test_where_it_stands(exchange, name, words):
    found, sentence = describe_state(exchange)
    assert found == name
    assert words in sentence
    assert f'class="mp-verdict mp-{name}" role="status"' in render_verdict(exchange)
    assert "<it>" not in render_verdict(exchange)


def test_spans_join_where_tokens_touch_and_nan_is_none():
    nan = float("nan")
    tokens = [TokenScore(0, 4, 0.6), TokenScore(5, 9, 0.7), TokenScore(10, 12, nan), TokenScore(13, 15, 0.8)]
    assert [span[:2] for span in find_spans(tuple(tokens), 0.5)] == [(0, 9), (13, 15)]
    assert find_spans((TokenScore(0, 4, nan),), 0.5) == []


def test_the_plot():
    shown = render_plot(REFUSED)
    assert "highest 0.80 at token 2, last 0.80; threshold 0.50." in shown
    assert 'd="M50.0 80.00L100.0 20.00"' in shown
    assert shown.count('class="mp-dot"') == 1
    assert render_plot(replace(REFUSED, threshold=0.1)).count('class="mp-dot"') == 2
    assert "mp-below" in render_plot(replace(REFUSED, threshold=0.95))
    assert "nothing yet" in render_plot(None)
    assert "http" not in shown
