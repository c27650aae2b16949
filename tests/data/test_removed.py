import pytest

from llava.data.removed import RemovedSpan, read_removed
from llava.data.schema import Action, GuardResult
from llava.errors import InputError


def test_a_guard_result_has_them_only_where_something_was_cut_out():
    result = GuardResult(
        "Boil it.", "Boil it. Harm.", 0.9, True, Action.TRIMMED, removed=(RemovedSpan(8, 14, " Harm."),)
    )
    assert result.to_dict()["removed"] == [{"start": 8, "end": 14, "text": " Harm."}]
    assert GuardResult.from_dict(result.to_dict()) == result
    assert "removed" not in GuardResult("Yes.", "Yes.", 0.1, False, Action.PASSED).to_dict()


@pytest.mark.parametrize("items", [[5], [[0, 1, "a"]], [{"start": 0, "end": 1}], [{"start": -1, "end": 1, "text": ""}]])
def test_anything_else_is_named(items):
    with pytest.raises(InputError, match=r"records\.jsonl line 3, 'removed'"):
        read_removed(items, "records.jsonl line 3", "mend it")
