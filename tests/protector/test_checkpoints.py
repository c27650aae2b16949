import json
import shutil

import pytest

from llava.errors import InputError
from llava.protector.checkpoints import load_tokenizer, open_checkpoint


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
