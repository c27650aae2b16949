import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.sources import MixturePart, iter_source, parse_mixture
from llava.errors import InputError


@given(
    parts=st.lists(
        st.tuples(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.floats(0.01, 100)),
        min_size=1,
        max_size=4,
        unique_by=lambda p: p[0],
    )
)
def test_a_mixture_is_read_as_written(parts):
    text = ",".join(f"folder/{name}.jsonl:{share!r}" for name, share in parts)
    assert parse_mixture(text) == [MixturePart(f"folder/{name}.jsonl", share) for name, share in parts]


@pytest.mark.parametrize(
    ("text", "word"),
    [("", "empty"), (",", "empty"), ("a:0", "above 0"), ("a:-1", "above 0"), ("x/a.jsonl,x/../x/a.jsonl:2", "twice")],
)
def test_bad_mixtures(text, word):
    with pytest.raises(InputError, match=word):
        parse_mixture(text)


def test_rows_come_with_their_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    found = list(iter_source(str(path)))
    assert [row for _, row in found] == [{"a": 1}, {"a": 2}]
    assert len({str(where) for where, _ in found}) == 2


def test_a_source_that_is_nowhere(tmp_path):
    with pytest.raises(InputError, match="gone"):
        list(iter_source(str(tmp_path / "gone.jsonl")))
