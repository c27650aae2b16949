import pytest

from llava.data.training.duplicates import drop_duplicates
from llava.data.training.pairs import DetectorRow, DetoxifierRow
from llava.errors import InputError

LONG = "first mix the flour with the water and the salt then knead the dough and let it rest for an hour or two"


def row(prompt, response, pair_id=None, chosen=None):
    return DetectorRow(prompt, response, False, "s", pair_id=pair_id, chosen=chosen)


def test_equal_texts_but_for_spelling_are_dropped_and_the_first_stays():
    rows = [row("How?", "Mix flour."), row("how", "  mix FLOUR"), row("Why?", "Mix flour.")]
    assert drop_duplicates(rows) == ([rows[0], rows[2]], 1, 0)


def test_training_rows_that_repeat_held_out_ones_go():
    held_out = [row("How?", "Mix flour.")]
    rows = [row("how", "mix flour"), row("how", "mix water")]
    assert drop_duplicates(rows, held_out) == ([rows[1]], 0, 1)


def test_pairs_stay_whole():
    """One side in common is no duplicate; both sides are, and then both go."""
    first = [row("q", "no", "p:1", True), row("q", "yes", "p:1", False)]
    other = [row("q", "no", "p:2", True), row("q", "maybe", "p:2", False)]
    again = [row("q", "no", "p:3", True), row("q", "yes", "p:3", False)]
    assert drop_duplicates(first + other + again) == (first + other, 2, 0)


def test_near_duplicates_need_the_threshold():
    pytest.importorskip("datasketch")
    rows = [row("How?", LONG), row("How?", f"{LONG} more"), row("How?", "something else altogether and quite long")]
    assert drop_duplicates(rows)[0] == rows
    assert drop_duplicates(rows, threshold=0.8) == ([rows[0], rows[2]], 1, 0)
    assert drop_duplicates(rows[2:], rows[:1], threshold=0.8) == (rows[2:], 0, 0)
    assert drop_duplicates(rows[1:2], rows[:1], threshold=0.8) == ([], 0, 1)


def test_detoxifier_rows_count_their_target():
    rows = [DetoxifierRow("q", "r", "t", "s"), DetoxifierRow("q", "r", "u", "s"), DetoxifierRow("q", "R", "T", "s")]
    assert drop_duplicates(rows) == (rows[:2], 1, 0)


@pytest.mark.parametrize("threshold", [0.0, 1.5, -1.0])
def test_bad_threshold(threshold):
    with pytest.raises(InputError, match="--near-duplicates"):
        drop_duplicates([row("q", "r")], threshold=threshold)
