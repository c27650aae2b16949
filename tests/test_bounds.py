import math

import pytest

from llava.bounds import BOUNDS, check_bounds
from llava.errors import InputError


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_what_is_no_number_within_the_bounds_is_refused_by_its_flag(name):
    flag = "--" + name.replace("_", "-")
    for value in (math.nan, math.inf, -math.inf, 10**30, -1, True, None, "8", [1], 10**5000):
        with pytest.raises(InputError) as caught:
            check_bounds(name, value)
        assert str(caught.value).startswith(f"{flag} ")
        assert BOUNDS[name].words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("batch_size", [1, 65536, "auto"]),
        ("temperature", [0, 0.0, 1e-5, 1.5]),
        ("threshold", [1e-300, 1, 1.0]),
        ("false_positive_rate", [0, 0.999]),
        ("seed", [0, 2**63 - 1]),
        ("tolerance", [0, 1e-3]),
        ("request_timeout", [0.1, 600]),
        ("limit", [1, 10**9]),
    ],
)
def test_the_ends_are_within(name, values):
    for value in values:
        assert check_bounds(name, value) is value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 2.0),
        ("temperature", 1e-6),
        ("threshold", 0),
        ("false_positive_rate", 1),
        ("max_new_tokens", 2**20 + 1),
        ("num_processes", 1025),
        ("request_timeout", 0),
    ],
)
def test_just_outside_is_refused(name, value):
    with pytest.raises(InputError):
        check_bounds(name, value)
