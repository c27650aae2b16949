import json
import shutil

import pytest

from llava.errors import InputError
from llava.protector.checkpoints import check_checkpoint, load_tokenizer, open_checkpoint
from tests.tiny import build_causal_lm


def test_adapter_names_its_base(tiny_detector, tiny_lm):
    checkpoint = open_checkpoint("detector", str(tiny_detector))
    assert (checkpoint.adapter, checkpoint.model) == (tiny_detector, str(tiny_lm))
    assert load_tokenizer(checkpoint).pad_token is not None


def test_merged_model_is_its_own_base(tiny_classifier):
    checkpoint = open_checkpoint("detector", str(tiny_classifier))
    assert (checkpoint.adapter, checkpoint.model) == (None, str(tiny_classifier))
    with pytest.raises(InputError, match="takes no base"):
        open_checkpoint("detector", str(tiny_classifier), base="x/y")


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_checkpoint("detector", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        open_checkpoint("detector", str(tmp_path))


def test_adapter_of_the_other_kind(tiny_detoxifier, tiny_detector):
    with pytest.raises(InputError, match="not a detector"):
        open_checkpoint("detector", str(tiny_detoxifier))
    with pytest.raises(InputError, match="not a detoxifier"):
        open_checkpoint("detoxifier", str(tiny_detector))


def test_task_type_is_checked_without_our_config(tiny_detoxifier, tmp_path):
    folder = shutil.copytree(tiny_detoxifier, tmp_path / "adapter")
    (folder / "protector_config.json").unlink()
    with pytest.raises(InputError, match="CAUSAL_LM"):
        open_checkpoint("detector", str(folder))


def test_adapter_whose_base_is_gone(tiny_detector, tmp_path):
    folder = shutil.copytree(tiny_detector, tmp_path / "adapter")
    for name, key in (("protector_config.json", "base_model"), ("adapter_config.json", "base_model_name_or_path")):
        values = json.loads((folder / name).read_text())
        values[key] = str(tmp_path / "gone")
        (folder / name).write_text(json.dumps(values))
    with pytest.raises(InputError, match="gone"):
        open_checkpoint("detector", str(folder))


def test_sound_checkpoints_pass_the_check(tiny_detector, tiny_detoxifier, tiny_classifier, tiny_lm):
    for path in (tiny_detector, tiny_classifier, "embedded"):
        check_checkpoint("detector", str(path))
    for path in (tiny_detoxifier, tiny_lm, "embedded"):
        check_checkpoint("detoxifier", str(path))


def test_the_check_finds_an_adapter_of_another_base(tiny_detector, tiny_detoxifier, tmp_path):
    wide = build_causal_lm(tmp_path / "wide", hidden_size=48, intermediate_size=96)
    for kind, path in (("detector", tiny_detector), ("detoxifier", tiny_detoxifier)):
        with pytest.raises(InputError, match="does not fit base"):
            check_checkpoint(kind, str(path), base=str(wide))


def test_the_check_finds_damaged_weights_and_foreign_heads(tiny_detector, tiny_lm, tmp_path):
    folder = shutil.copytree(tiny_detector, tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        check_checkpoint("detector", str(folder))
    with pytest.raises(InputError, match="labels"):
        check_checkpoint("detector", str(tiny_lm))
