from hypothesis import given
from hypothesis import strategies as st

from llava.cli.config import join_lists, split_list

WORDS = st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,8}", fullmatch=True), min_size=1, max_size=4)


@given(items=WORDS)
def test_blank_separated_lists_come_out_whole(items):
    arguments = join_lists(["generate", "--image-types", *items, "--seed", "1"])
    assert arguments[:2] == ["generate", "--image-types"]
    assert arguments[3:] == ["--seed", "1"]
    assert split_list([arguments[2]]) == tuple(items)


@given(
    arguments=st.lists(st.text(max_size=6).filter(lambda word: word not in ("--image-types", "--scenarios", "--judge")))
)
def test_other_arguments_stay_as_they_are(arguments):
    assert join_lists(arguments) == arguments


def test_repeated_flags_and_none():
    assert split_list(["A", "B,C"]) == ("A", "B", "C")
    assert split_list(None) is None
    assert split_list(["", "A,,B ", " "]) == ("A", "B")


def test_names_may_hold_blanks_where_they_do():
    arguments = join_lists(["--scenarios", "Hate speech", "01-Fraud", "--seed", "1"])
    assert split_list([arguments[1]], at_blanks=False) == ("Hate speech", "01-Fraud")
