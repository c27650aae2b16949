"""Several guards together: one scale for all, and what is unknown stays so."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava import Protector, build_guard
from llava.data.schema import Action
from llava.errors import InputError
from llava.protector.guard import identify_guard
from llava.protector.guards.base import Guard
from llava.protector.guards.composite import COMBINATIONS, CompositeGuard, align_score, list_keys
from tests.tiny_guards import SAFE, UNSAFE

SCORES = st.one_of(st.floats(0, 1), st.just(math.nan))
THRESHOLDS = st.floats(0, 1, exclude_min=True)


class Fixed:
    """A guard that gives the scores it was made with."""

    def __init__(self, scores, threshold=0.5, name="fixed"):
        self.scores, self.threshold, self.name = scores, threshold, name

    @property
    def identity(self):
        return f"{self.name}@{self.threshold}"

    def score(self, responses, prompts):
        return self.scores


@given(score=st.floats(0, 1), threshold=THRESHOLDS)
def test_a_score_is_flagged_on_the_common_scale_exactly_when_its_own_guard_flags_it(score, threshold):
    aligned = align_score(score, threshold)
    assert 0 <= aligned <= 1
    assert (aligned >= 0.5) is (score >= threshold)


@given(scores=st.lists(st.floats(0, 1), min_size=2, max_size=5), threshold=THRESHOLDS)
def test_the_order_of_scores_is_kept(scores, threshold):
    ascending = [align_score(score, threshold) for score in sorted(scores)]
    assert ascending == sorted(ascending)


@given(rows=st.lists(st.tuples(SCORES, THRESHOLDS), min_size=1, max_size=5), how=st.sampled_from(sorted(COMBINATIONS)))
def test_an_unknown_score_never_lets_through_what_a_known_one_could_flag(rows, how):
    members = [Fixed([score], threshold) for score, threshold in rows]
    guard = CompositeGuard(how, members)
    (score,) = guard.score(["r"], ["p"])
    passes = score < guard.threshold
    unknown = [i for i, (value, _) in enumerate(rows) if math.isnan(value)]
    if not unknown:
        flags = [value >= threshold for value, threshold in rows]
        if how != "mean":
            assert passes is not {"any": any, "all": all}[how](flags)
        assert not math.isnan(score)
    elif math.isnan(score):
        assert not passes
    else:
        # Known although a member is not: flagged whatever that member would have said.
        for guess in (0.0, 1.0):
            filled = [(guess if i in unknown else value, threshold) for i, (value, threshold) in enumerate(rows)]
            (other,) = CompositeGuard(how, [Fixed([v], t) for v, t in filled]).score(["r"], ["p"])
            assert other >= 0.5
            assert score >= 0.5


def test_members_are_compared_at_their_own_thresholds():
    scores = [0.2, 0.6, 0.95]
    strict, lax = Fixed(scores, 0.1), Fixed(scores, 0.9)
    found = {how: CompositeGuard(how, [strict, lax]).score([""] * 3, [""] * 3) for how in COMBINATIONS}
    assert found["any"] == pytest.approx([0.5 + 0.5 / 9, 0.5 + 0.25 / 0.9, 0.5 + 0.425 / 0.9])
    assert found["all"] == pytest.approx([0.2 / 1.8, 0.6 / 1.8, 0.75])
    assert found["mean"] == pytest.approx([(a + b) / 2 for a, b in zip(found["any"], found["all"], strict=True)])


def test_a_member_that_gives_nonsense_is_one_that_cannot_tell():
    guard = CompositeGuard("any", [Fixed(["high", None, 0.9]), Fixed([0.1, 0.9, 0.1])])
    unknown, *flagged = guard.score([""] * 3, [""] * 3)
    assert math.isnan(unknown)
    assert flagged == [0.9, 0.9]
    results = Protector(guard).guard(["p"] * 3, ["r"] * 3)
    assert [result.action for result in results] == [Action.WITHHELD, Action.REFUSED, Action.REFUSED]


def test_what_it_is_follows_from_its_members():
    one, two = Fixed([], 0.5, "one"), Fixed([], 0.5, "two")
    guards = [CompositeGuard("any", [one, two]), CompositeGuard("all", [one, two]), CompositeGuard("any", [two, one])]
    assert len({guard.identity for guard in guards}) == 3
    assert all(isinstance(guard, Guard) for guard in guards)
    assert guards[0].identity != CompositeGuard("any", [one, Fixed([], 0.4, "two")]).identity
    nested = CompositeGuard("mean", [guards[0], Fixed([], 0.5, "three")])
    assert list_keys(nested) == {nested.key, guards[0].key, "one", "two", "three"}
    assert guards[0].name == "any(one, two)"
    for wrong in (("most", [one]), ("any", [])):
        with pytest.raises(ValueError, match="choose any, all, mean"):
            CompositeGuard(*wrong)


def test_real_guards_together(tiny_detector, tiny_guard):
    spec = f"any({tiny_detector}, guard:{tiny_guard('llama_guard')})"
    guard: Any = build_guard(spec, device="cpu", dtype="float32", batch_size=3)
    assert [member.batch_size for member in guard.members] == [3, 3]
    own, other = guard.members
    texts, prompts = [UNSAFE, SAFE, "Mix flour."], ["How?"] * 3
    scores = guard.score(texts, prompts)
    aligned = [
        [align_score(score, member.threshold) for score in member.score(texts, prompts)] for member in (own, other)
    ]
    assert scores == pytest.approx([max(pair) for pair in zip(*aligned, strict=True)], abs=1e-6)
    found = identify_guard(spec)
    assert found.digest == guard.key
    assert set(found.members) == {own.key, other.key}
    with pytest.raises(InputError, match="is several guards"):
        build_guard(spec, base="x")
