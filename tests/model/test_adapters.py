import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llava.errors import InputError
from llava.model.adapters import is_adapter, load_adapter, read_adapter_config, read_adapter_weights
from llava.protector.classifier import HarmClassifier, load_sequence_classifier


def classifier(folder, **options):
    return HarmClassifier(load_sequence_classifier(str(folder), **options))


def test_weights_of_the_adapter_are_in_place(tiny_detector, tiny_lm):
    model = load_adapter(classifier(tiny_lm), tiny_detector, str(tiny_lm))
    saved = load_file(tiny_detector / "adapter_model.safetensors")
    loaded = model.state_dict()
    for key, value in saved.items():
        name = (
            key.replace(".weight", ".default.weight")
            if "lora" in key
            else key.replace("score.", "score.modules_to_save.default.")
        )
        assert torch.equal(loaded[name], value), key
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_trainable_adapter(tiny_detector, tiny_lm):
    model = load_adapter(classifier(tiny_lm), tiny_detector, str(tiny_lm), trainable=True)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("lora_A" in name for name in names)
    assert any("score" in name for name in names)


def test_pickled_weights_are_read_without_running_code(tiny_detector, tmp_path):
    folder = shutil.copytree(tiny_detector, tmp_path / "pickled")
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(weights, folder / "adapter_model.bin")
    assert read_adapter_weights(folder).keys() == weights.keys()


class Payload:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_malicious_pickle_is_refused(tmp_path):
    torch.save({"x": Payload(tmp_path / "owned")}, tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match="cannot be read"):
        read_adapter_weights(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_config_must_be_lora(tmp_path):
    assert not is_adapter(tmp_path)
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        read_adapter_config(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(InputError, match="LORA"):
        read_adapter_config(tmp_path)
    with pytest.raises(InputError, match="no adapter weights"):
        read_adapter_weights(tmp_path)
