import pytest
import torch

from llava.errors import FailedRunError, InputError
from llava.model.failures import LONGEST_REASON, describe_error, explain_loading


@pytest.mark.parametrize(
    "error", [KeyError("x"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), RecursionError(), OSError(2, "no")]
)
def test_any_error_of_a_library_becomes_one_line(error):
    with (
        pytest.raises(InputError, match=r"model x cannot be loaded \(.+\); fetch it again"),
        explain_loading("model x", "fetch it again"),
    ):
        raise error


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError(), FailedRunError("x"), KeyboardInterrupt()])
def test_memory_and_our_own_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, explain_loading("model x", "fetch it again"):
        raise error
    assert caught.value is error


def test_reasons_are_short():
    assert len(describe_error(ValueError("a b" * 500))) == LONGEST_REASON
    assert describe_error(ValueError()) == "ValueError"
