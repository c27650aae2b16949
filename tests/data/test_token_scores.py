import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.schema import Action, GuardResult
from llava.data.token_scores import TokenScore, read_token_scores, write_token_scores
from llava.errors import InputError

SCORES = st.builds(TokenScore, st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 1000).map(lambda n: n / 1000))


@given(st.lists(SCORES, max_size=5))
def test_scores_survive_their_line(scores):
    line = json.dumps(write_token_scores(scores))
    assert read_token_scores(json.loads(line), "x", "mend it") == tuple(scores)


def test_a_score_that_is_none_comes_back_as_nan():
    (found,) = read_token_scores(write_token_scores([TokenScore(0, 3, math.nan)]), "x", "mend it")
    assert math.isnan(found.score)


@pytest.mark.parametrize("items", [[[0, 1]], [5], [["a", 1, 0.5]], [[0, 1, 1.5]], [[-1, 1, 0.5]], [[0, 1, True]]])
def test_anything_else_is_named(items):
    with pytest.raises(InputError, match=r"records\.jsonl line 3, 'token_scores'"):
        read_token_scores(items, "records.jsonl line 3", "mend it")


def test_a_guard_result_has_them_only_where_there_are_any():
    result = GuardResult("No.", "Yes.", 0.9, True, Action.REFUSED, token_scores=(TokenScore(0, 4, 0.9),))
    assert GuardResult.from_dict(result.to_dict()) == result
    assert "token_scores" not in GuardResult("Yes.", "Yes.", 0.1, False, Action.PASSED).to_dict()
