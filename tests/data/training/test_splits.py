from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.pairs import DetectorRow
from llava.data.training.splits import normalise_prompt, split_of, split_rows


def test_the_split_is_the_published_one():
    """Fixed by the salt: if this changes, held-out rows of published adapters have become training rows."""
    sides = [split_of(f"prompt {i}") for i in range(30)]
    assert [i for i, side in enumerate(sides) if side == "held_out"] == HELD_OUT


HELD_OUT = [3, 7, 14, 28]


ASCII = st.text(st.characters(max_codepoint=127))


@given(ASCII)
def test_case_spacing_and_punctuation_do_not_move_a_prompt(text):
    word = f"bake{text}bread"
    assert split_of(word) == split_of(f"  {word.upper()} ?\n")


def test_unicode_forms_are_one():
    assert normalise_prompt("Cafe\u0301 \uff21") == normalise_prompt("caf\u00e9 A")


def test_the_share_is_about_right_and_seeds_are_independent():
    prompts = [f"prompt {i}" for i in range(2000)]
    first = {p for p in prompts if split_of(p, 0) == "held_out"}
    second = {p for p in prompts if split_of(p, 1) == "held_out"}
    assert 340 < len(first) < 460
    assert 50 < len(first & second) < 120


def test_fractions_nest():
    for i in range(200):
        if split_of(f"p{i}", fraction=0.1) == "held_out":
            assert split_of(f"p{i}", fraction=0.3) == "held_out"
    assert split_of("p", fraction=0.0) == "train"


def test_rows_with_one_prompt_stay_together_and_rows_without_prompts_spread():
    same = [DetectorRow("one prompt", str(i), True, "s") for i in range(20)]
    assert sorted(map(len, split_rows(same))) == [0, 20]
    without = [DetectorRow("", f"response {i}", True, "s") for i in range(200)]
    assert all(map(len, split_rows(without)))


def test_real_data_splits_by_behaviour(shared_data):
    from llava.data.training.pairs import load_detector_rows
    from llava.data.training.sources import parse_mixture

    train, held_out = split_rows(load_detector_rows(parse_mixture(str(shared_data / "jailbreakbench_responses.jsonl"))))
    assert (len(train), len(held_out)) == (995, 246)
    assert not {row.prompt for row in train} & {row.prompt for row in held_out}
