import pytest

from llava.errors import InputError
from llava.model.files.adapter import (
    build_lora_config,
    check_adapter_config,
    open_adapter_weights,
    read_adapter_config,
)
from tests.model.damage import copy_adapter, edit_json


def test_absent_fields_have_pefts_defaults():
    config = check_adapter_config({"peft_type": "LORA", "target_modules": ["q_proj"]}, "x")
    assert (config["r"], config["lora_alpha"], config["bias"], config["use_dora"]) == (8, 8.0, "none", False)
    assert config["layers_to_transform"] is None
    assert config["rank_pattern"] == {}


def test_values_come_out_as_numbers_of_their_kind():
    config = check_adapter_config(
        {
            "peft_type": "LORA",
            "r": 4.0,
            "alpha_pattern": {"q": 3},
            "rank_pattern": {"q": 2.0},
            "layers_to_transform": 3,
        },
        "x",
    )
    assert (config["r"], type(config["r"])) == (4, int)
    assert config["alpha_pattern"] == {"q": 3.0}
    assert config["rank_pattern"] == {"q": 2}
    assert config["layers_to_transform"] == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", None),
        ("r", 1 << 40),
        ("lora_alpha", -4),
        ("lora_dropout", 2),
        ("modules_to_save", "score"),
        ("rank_pattern", {"q": "2"}),
        ("alpha_pattern", {"q": 0}),
        ("bias", "some"),
        ("fan_in_fan_out", "yes"),
        ("base_model_name_or_path", 5),
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("init_lora_weights", ["pissa"]),
        ("target_parameters", ["experts"]),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(tiny_detector, tmp_path, field, value):
    folder = copy_adapter(tiny_detector, tmp_path / "adapter", **{field: value})
    with pytest.raises(InputError, match=field) as caught:
        read_adapter_config(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_object_is_said(tmp_path):
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(InputError, match="is a list, not an object"):
        read_adapter_config(tmp_path)


def test_the_task_type_is_the_heads_where_the_file_has_none(tiny_detector, tmp_path):
    folder = copy_adapter(tiny_detector, tmp_path / "adapter")
    edit_json(folder / "adapter_config.json", task_type=None)
    assert build_lora_config(folder, with_head=True).task_type == "SEQ_CLS"
    assert build_lora_config(folder, with_head=False).task_type is None


def test_fields_that_peft_refuses_together_are_one_line(tiny_detector, tmp_path):
    folder = copy_adapter(tiny_detector, tmp_path / "adapter", layers_pattern=["layers"], layers_to_transform=None)
    with pytest.raises(InputError, match=r"adapter config .*layers_to_transform.*; copy the adapter again"):
        build_lora_config(folder, with_head=True)


def test_an_empty_file_holds_no_tensors(tmp_path):
    import torch

    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match="holds no tensors"):
        open_adapter_weights(tmp_path)
