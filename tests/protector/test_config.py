import json

import pytest

from llava.errors import InputError
from llava.protector.config import CONFIG_NAME, ProtectorConfig


def test_round_trip(tmp_path):
    config = ProtectorConfig(kind="detector", positive_label="harmful", pooling="mean", num_layers=20, threshold=0.3)
    config.save(tmp_path)
    assert ProtectorConfig.load(tmp_path, "detector") == config


def test_folder_without_the_file_is_read_as_a_released_checkpoint(tmp_path):
    config = ProtectorConfig.load(tmp_path, "detector")
    assert (config.positive_label, config.pooling, config.text_form) == ("safe", "last", "prompt+response")
    assert (config.threshold, config.temperature, config.max_length) == (0.5, 1.0, 512)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text_form", "answer"),
        ("pooling", "max"),
        ("positive_label", "good"),
        ("threshold", 0.0),
        ("threshold", 1.5),
        ("temperature", 0.0),
        ("max_length", 2),
        ("num_layers", 0),
        ("threshold", "high"),
        ("threshold", float("nan")),
        ("threshold", True),
        ("temperature", float("inf")),
        ("temperature", False),
        ("temperature", "1"),
        ("max_length", True),
        ("max_length", 8.5),
        ("num_layers", 1.5),
        ("num_layers", True),
        ("num_layers", "2"),
        ("base_model", 5),
        ("pooling", ["last"]),
        ("kind", 3),
    ],
)
def test_bad_value_is_one_line_that_names_folder_and_field(tmp_path, field, value):
    (tmp_path / CONFIG_NAME).write_text(json.dumps({"kind": "detector", field: value}))
    with pytest.raises(InputError) as caught:
        ProtectorConfig.load(tmp_path, "detector")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_key_and_other_kind_are_errors(tmp_path):
    (tmp_path / CONFIG_NAME).write_text('{"kind": "detector", "treshold": 0.3}')
    with pytest.raises(InputError, match="treshold"):
        ProtectorConfig.load(tmp_path, "detector")
    (tmp_path / CONFIG_NAME).write_text('{"kind": "detoxifier"}')
    with pytest.raises(InputError, match="is a detoxifier, not a detector"):
        ProtectorConfig.load(tmp_path, "detector")


def test_corrupt_file_is_named(tmp_path):
    (tmp_path / CONFIG_NAME).write_text("{")
    with pytest.raises(InputError, match=CONFIG_NAME):
        ProtectorConfig.load(tmp_path, "detector")


def test_a_whole_number_written_as_a_decimal_is_one(tmp_path):
    (tmp_path / CONFIG_NAME).write_text('{"kind": "detector", "max_length": 64.0, "num_layers": 2.0, "temperature": 2}')
    config = ProtectorConfig.load(tmp_path, "detector")
    assert (config.max_length, config.num_layers) == (64, 2)
    assert {type(config.max_length), type(config.num_layers)} == {int}
