import pytest

from llava.data.training.pairs import DetectorRow
from llava.train.embedded.detector import RECIPE, read_recipe
from llava.train.embedded.threshold import Choice, calibrate_rows, read_choice


def test_the_recipe_says_where_the_threshold_comes_from():
    choice = read_choice(RECIPE)
    assert set(choice.limits) <= {group for group, _ in choice.sizes}
    assert {group for group, _ in choice.sizes} <= {group for group, _ in read_recipe().groups}
    assert 0 < choice.overall < 0.1


def test_the_strictest_limit_decides():
    rows = [DetectorRow("", "x", i % 4 == 0, "a" if i < 40 else "b") for i in range(80)]
    scores = [0.9 if row.harmful else i / 100 for i, row in enumerate(rows)]
    loose = calibrate_rows(rows, scores, 1.0, Choice({}, {}, 0.5))
    strict = calibrate_rows(rows, scores, 1.0, Choice({}, {"b": 0.0, "gone": 0.0}, 0.5))
    assert loose.threshold < strict.threshold
    assert [rate.false_positive_rate for rate in strict.sources] == [0.0, 0.0]
    assert strict.recall == pytest.approx(1.0)
    assert loose.temperature == strict.temperature
