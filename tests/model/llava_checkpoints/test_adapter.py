import json
import shutil

import pytest
import torch
from PIL import Image

from llava.errors import InputError
from llava.model.llava_checkpoints.adapter import find_adapter
from llava.model.loading import load_mllm
from tests.model.damage import copy_adapter, without
from tests.tiny_adapters import build_llava_adapter


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_llava):
    return build_llava_adapter(tmp_path_factory.mktemp("adapter"), tiny_llava)


def logits(model, picture):
    inputs = model.encode(["What is it?"], [picture] if picture else None)
    with torch.inference_mode():
        return model.model(**inputs).logits


def test_whole_models_are_no_adapters(tiny_llava, originals):
    assert find_adapter("embedded") is None
    for folder in (tiny_llava, originals["lora"], originals["projector"]):
        assert find_adapter(str(folder)) is None


def test_an_adapter_names_its_base(adapter, tiny_llava):
    assert find_adapter(str(adapter)).base == str(tiny_llava)
    assert find_adapter(str(adapter), "another").base == "another"


def test_an_adapter_answers_as_base_and_adapter_together(adapter, tiny_llava):
    """PEFT's own forward is the yardstick; the base alone gives something else."""
    from peft import PeftModel

    loaded, base = (load_mllm(path, device="cpu", dtype="float32") for path in (adapter, tiny_llava))
    picture = Image.linear_gradient("L").convert("RGB")
    before = [logits(base, with_picture) for with_picture in (picture, None)]
    base.model = PeftModel.from_pretrained(base.model, adapter).eval()
    for with_picture, alone in zip((picture, None), before, strict=True):
        found = logits(loaded, with_picture)
        torch.testing.assert_close(found, logits(base, with_picture), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, alone, atol=1e-2)
    assert loaded.generate(["Hi"], [picture], max_new_tokens=2)


def test_another_base_may_be_named(adapter, tiny_llava, tmp_path):
    moved = shutil.copytree(adapter, tmp_path / "adapter")
    settings = json.loads((moved / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = None
    (moved / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="records no base model; give --base"):
        load_mllm(moved)
    assert load_mllm(moved, base=str(tiny_llava), device="cpu").generate(["Hi"], max_new_tokens=2)


def test_an_adapter_of_another_model_is_refused(tiny_detoxifier, tiny_llava):
    with pytest.raises(InputError, match="does not fit base"):
        load_mllm(tiny_detoxifier, base=str(tiny_llava), device="cpu")


@pytest.mark.parametrize("base", ["v15_bin", "base"])
def test_an_intermediate_checkpoint_says_what_it_lacks(originals, tmp_path, base):
    """What the original's training saves on its way: the adapter's files and the Trainer's, nothing else."""
    folder = tmp_path / "checkpoint-500"
    shutil.copytree(originals["lora"], folder, ignore=shutil.ignore_patterns("config.json", "non_lora*"))
    path = str(originals["lora"].parent / base)
    for given in (path, None):
        with pytest.raises(
            InputError, match=r"intermediate checkpoint .*copy config\.json and non_lora_trainables\.bin"
        ):
            load_mllm(folder, base=given)
    renamed = folder.rename(tmp_path / "renamed")
    if base == "v15_bin":
        with pytest.raises(InputError, match="intermediate checkpoint"):
            load_mllm(renamed, base=path)
    (renamed / "trainer_state.json").write_text("{}")
    with pytest.raises(InputError, match="intermediate checkpoint"):
        load_mllm(renamed, base=path)
    for name in ("config.json", "non_lora_trainables.bin"):
        shutil.copy(originals["lora"] / name, renamed / name)
    assert find_adapter(str(renamed)) is None


def test_an_adapter_that_is_not_whole_is_refused(adapter, tiny_llava, tmp_path):
    from llava.model.llava_checkpoints.merge import merge_llava

    for number, (part, named) in enumerate(
        [("layers.1.mlp", r"lacks .*language_model\.layers\.1\.mlp"), ("linear_2", r"lacks .*projector\.linear_2")]
    ):
        folder = copy_adapter(adapter, tmp_path / str(number), without(part))
        with pytest.raises(InputError, match=named):
            load_mllm(folder, device="cpu")
        with pytest.raises(InputError, match=named):
            merge_llava(str(folder), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
