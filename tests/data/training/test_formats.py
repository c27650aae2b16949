import pytest

from llava.data.training.formats import Where, find_format, split_transcript
from llava.errors import InputError

WHERE = Where("rows.jsonl", 3)


def test_the_last_turn_of_a_transcript_is_the_response():
    text = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: How do I bake?\n\nAssistant: Mix flour."
    prompt, response = split_transcript(text, WHERE)
    assert prompt.endswith("How do I bake?")
    assert response.strip() == "Mix flour."


def test_labels_are_read_in_their_direction():
    row = {"prompt": "p", "response": "r", "is_safe": True}
    assert find_format(row, WHERE).parse(row, WHERE).harmful is False
    row = {"prompt": "p", "response": "r", "harmful": True}
    assert find_format(row, WHERE).parse(row, WHERE).harmful is True


def test_unknown_columns_are_named_with_their_place():
    with pytest.raises(InputError, match="3") as caught:
        find_format({"nonsense": 1}, WHERE)
    assert "rows.jsonl" in str(caught.value)


def test_a_label_of_the_wrong_type_is_named_with_its_place():
    row = {"prompt": "p", "response": "r", "harmful": "yes"}
    with pytest.raises(InputError, match="harmful") as caught:
        find_format(row, WHERE).parse(row, WHERE)
    assert "rows.jsonl" in str(caught.value)
