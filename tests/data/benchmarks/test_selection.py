from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.benchmarks.selection import Selection, leave_out_missing
from llava.data.schema import ImageType, Question
from llava.errors import InputError

TYPES = (ImageType.TEXT, ImageType.SD, ImageType.TYPO, ImageType.SD_TYPO)


def make(scenarios: int, ids: int, types=TYPES) -> list[Question]:
    return [
        Question("b", f"{s:02d}-S", str(i), kind, "?")
        for s in range(1, scenarios + 1)
        for i in range(ids)
        for kind in types
    ]


def test_a_small_limit_shows_many_scenarios_and_every_image_type():
    taken = Selection(limit=8).take(make(13, 5))
    assert len({q.scenario for q in taken}) == 8
    assert Counter(q.image_type for q in taken) == dict.fromkeys(TYPES, 2)


def test_a_text_is_asked_in_all_its_types_before_the_next_one():
    taken = Selection(limit=13 * 4).take(make(13, 5))
    assert {q.id for q in taken} == {"0"}


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 100))
def test_a_larger_limit_only_adds(scenarios, ids, limit):
    questions = make(scenarios, ids)
    small, large = Selection(limit=limit).take(questions), Selection(limit=limit + 1).take(questions)
    assert len(small) == min(limit, len(questions))
    assert {q.key for q in small} <= {q.key for q in large}
    assert small == [q for q in questions if q in small]
    counts = Counter(q.scenario for q in small)
    assert max(counts.values()) - min(counts[s] for s in {q.scenario for q in questions}) <= 1


def test_uneven_scenarios_are_exhausted():
    questions = [*make(1, 1), *(Question("b", "02-S", str(i), ImageType.TEXT, "?") for i in range(9))]
    assert Selection(limit=12).take(questions) != questions
    assert Selection(limit=13).take(questions) == questions
    assert Counter(q.scenario for q in Selection(limit=12).take(questions)) == {"01-S": 4, "02-S": 8}


@pytest.mark.parametrize("asked", ["06-Fraud", "06-fraud", "06", "6", " 6 "])
def test_scenario_by_name_or_number(asked):
    known = ["01-Illegal", "06-Fraud", "16-Other"]
    assert Selection.parse([asked]).choose_scenarios(known, "b") == ["06-Fraud"]


@pytest.mark.parametrize("asked", ["Fraud", "7", "", "06-", "-6", "²"])
def test_unknown_scenario_lists_the_known_ones(asked):
    with pytest.raises(InputError, match=r"has no scenario .* it has 06-Fraud, Other"):
        Selection.parse([asked]).choose_scenarios(["06-Fraud", "Other"], "b")


def test_filter_keeps_order_and_types():
    kept = Selection.parse(["2", "1"], ["typo", ImageType.TEXT]).filter(make(3, 1), "b")
    assert [(q.scenario, q.image_type.value) for q in kept] == [
        ("01-S", "TEXT"),
        ("01-S", "TYPO"),
        ("02-S", "TEXT"),
        ("02-S", "TYPO"),
    ]


def test_filter_says_which_types_there_are():
    with pytest.raises(InputError, match="no question of the image types asked for; it has TEXT, SD"):
        Selection.parse(image_types=["IMAGE"]).filter(make(1, 1), "b")


def test_unknown_image_type_and_bad_limit():
    with pytest.raises(InputError, match="unknown image type 'PHOTO'; choose from TEXT, SD"):
        Selection.parse(image_types=["PHOTO"])
    for limit in (0, -3):
        with pytest.raises(InputError, match="limit must be at least 1"):
            Selection.parse(limit=limit)
    assert Selection.parse([], []) == Selection()


def test_missing_images_are_parted_and_named_once(tmp_path):
    (tmp_path / "there.png").touch()
    there, gone = str(tmp_path / "there.png"), str(tmp_path / "gone.png")
    questions = [
        Question("b", "s", str(n), ImageType.IMAGE, "?", image) for n, image in enumerate([there, gone, gone, None])
    ]
    present, missing = leave_out_missing(questions, "b", "get them")
    assert [q.id for q in present] == ["0", "3"]
    assert missing == [gone]
    with pytest.raises(InputError, match=r"benchmark b: all 1 images are missing, such as .*gone\.png; get them"):
        leave_out_missing(questions[1:3], "b", "get them")
