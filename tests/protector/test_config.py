import json

import pytest

from llava.errors import InputError
from llava.protector.config import CONFIG_NAME, ProtectorConfig, parse_label


def test_round_trip(tmp_path):
    config = ProtectorConfig(kind="detector", positive_label="harmful", pooling="mean", num_layers=20, threshold=0.3)
    config.save(tmp_path)
    assert ProtectorConfig.load(tmp_path, "detector") == config


def test_folder_without_the_file_is_read_as_a_released_checkpoint(tmp_path):
    config = ProtectorConfig.load(tmp_path, "detector")
    assert (config.positive_label, config.pooling, config.text_form) == ("safe", "last", "prompt+response")
    assert (config.threshold, config.temperature, config.max_length) == (0.5, 1.0, 512)
    assert config.normalise is False


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
        ("threshold", None),
        ("temperature", float("nan")),
        ("temperature", True),
        ("temperature", 1e30),
        ("max_length", "512"),
        ("max_length", 1 << 40),
        ("kind", ["detector"]),
        ("pooling", None),
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
        ("normalise", 1),
        ("normalise", "true"),
        ("normalise", None),
        ("stretches", 32),
        ("stretches", ["32"]),
        ("stretches", [0]),
        ("stretches", [True]),
        ("stretches", [1.5]),
        ("stretches", [513]),
        ("stretch_margin", -1),
        ("stretch_margin", float("nan")),
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


def test_a_whole_number_may_be_written_with_a_point(tmp_path):
    (tmp_path / CONFIG_NAME).write_text('{"kind": "detector", "num_layers": 18.0}')
    config = ProtectorConfig.load(tmp_path, "detector")
    assert [*range(20)][: config.num_layers] == [*range(18)]


def test_a_file_that_is_no_object_is_named(tmp_path):
    (tmp_path / CONFIG_NAME).write_text("[]")
    with pytest.raises(InputError, match=CONFIG_NAME):
        ProtectorConfig.load(tmp_path, "detector")


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        ("harmful", "harmful"),
        ("UNSAFE", "harmful"),
        ("toxic", "harmful"),
        ("label_toxic", "harmful"),
        ("isHarmful", "harmful"),
        ("not safe", "harmful"),
        ("safe", "safe"),
        ("Harmless", "safe"),
        ("non-toxic", "safe"),
        ("not_harmful", "safe"),
        ("LABEL_0", "safe"),
        ("score", None),
        ("1", None),
        ("", None),
        ("safe or harmful", None),
        ("not not harmful", None),
    ],
)
def test_what_labels_mean(label, meaning):
    assert parse_label(label) == meaning


@pytest.mark.parametrize(("label", "meaning"), [("harmful", "harmful"), ("safe", "safe"), ("LABEL_0", "safe")])
def test_a_classifiers_label_decides_where_nothing_else_does(tmp_path, label, meaning):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": label}}))
    assert ProtectorConfig.load(tmp_path, "detector").positive_label == meaning
    (tmp_path / CONFIG_NAME).write_text('{"kind": "detector", "threshold": 0.3}')
    assert ProtectorConfig.load(tmp_path, "detector").positive_label == meaning
    (tmp_path / CONFIG_NAME).write_text('{"kind": "detector", "positive_label": "harmful"}')
    assert ProtectorConfig.load(tmp_path, "detector").positive_label == "harmful"


@pytest.mark.parametrize(
    ("labels", "named"),
    [({"0": "verdict"}, "says neither harmful nor safe; write"), ({"0": 5}, "'0' is 5"), (["harmful"], "is a list")],
)
def test_a_label_that_says_nothing_stops(tmp_path, labels, named):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    with pytest.raises(InputError, match=named) as caught:
        ProtectorConfig.load(tmp_path, "detector")
    assert str(tmp_path) in str(caught.value)


def test_adapters_and_detoxifiers_have_no_label_of_their_own(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "verdict"}}))
    assert ProtectorConfig.load(tmp_path, "detoxifier").positive_label == "safe"
    (tmp_path / "adapter_config.json").write_text("{}")
    assert ProtectorConfig.load(tmp_path, "detector").positive_label == "safe"


def test_stretches_are_kept_in_order_and_go_with_the_mean_over_the_response(tmp_path):
    config = ProtectorConfig(kind="detector", positive_label="harmful", pooling="mean_response", stretches=(64, 32, 64))
    assert config.stretches == (32, 64)
    config.save(tmp_path)
    assert ProtectorConfig.load(tmp_path, "detector") == config
    assert ProtectorConfig(kind="detector").stretches == ()
    for wrong in ({"pooling": "mean"}, {"pooling": "mean_response", "positive_label": "safe"}):
        with pytest.raises(InputError, match="stretches"):
            ProtectorConfig(kind="detector", stretches=(32,), **{"positive_label": "harmful", **wrong})
