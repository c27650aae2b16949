"""Configs and weight files of detectors, detoxifiers, adapters, bases and LLaVAs, damaged in every way.

The models are tiny and built once; what a parser reads is written anew for each input. Where a model would be loaded,
the check before the loading is what is tried.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from llava.model.adapter_check import check_adapter, check_tensors, check_values
from llava.model.adapter_check import expected_shapes as shapes_of_adapter
from llava.model.embedded.stack import VISION_DESCRIPTION, read_vision_description
from llava.model.files.adapter import build_lora_config, open_adapter_weights
from llava.model.files.model import check_model_files
from llava.model.files.tensors import iter_tensors, read_tensors, weight_files
from llava.model.llava_checkpoints.format import recognise
from llava.model.llava_checkpoints.source import LoraDeltas, OriginalSource
from llava.model.llava_checkpoints.to_hf import expected_shapes
from llava.model.loading import load_processor, load_processor_of
from llava.model.tokenizers import load_tokenizer
from llava.protector.checkpoints import build_network_without_weights, open_checkpoint
from llava.protector.config import CONFIG_NAME, ProtectorConfig, read_positive_label
from tests.fuzz.support import check_parser, damaged, dump, fuzz, list_tree, mutated, some, values, write
from tests.model import original_checkpoints

PROTECTOR = {
    "kind": "detector",
    "base_model": "x/y",
    "text_form": "prompt+response",
    "max_length": 256,
    "positive_label": "harmful",
    "pooling": "mean_response",
    "num_layers": 18,
    "threshold": 0.75,
    "temperature": 0.6,
}


def read(path):
    """Return a JSON file's content."""
    return json.loads(path.read_text())


def copy_once(source, target):
    """Copy a folder at the first of a test's inputs, and return the copy."""
    return target if target.exists() else shutil.copytree(source, target)


def check_weights(model, folder, shapes):
    """Check an adapter's file as `check_adapter` does once the config is put on the base, which costs far more."""
    opened = open_adapter_weights(folder)
    names = {key: key.replace(".default.weight", ".weight") for key in opened.keys}
    check_tensors(opened, names, shapes, model, folder, "base")
    check_values(opened, folder)
    return opened


@pytest.fixture(scope="session")
def network(tiny_detector):
    """The detector's network without weights and without its adapter."""
    return build_network_without_weights("detector", open_checkpoint("detector", str(tiny_detector)))


@pytest.fixture(scope="session")
def shapes(tiny_detector, network):
    """The tensors that the detector's adapter must have."""
    return shapes_of_adapter(network, build_lora_config(tiny_detector, with_head=True), tiny_detector, "base")


@pytest.fixture(scope="session")
def adapters(tmp_path_factory, tiny_detector):
    """The detector's adapter as safetensors and as a pickle."""
    pickled = shutil.copytree(tiny_detector, tmp_path_factory.mktemp("adapters") / "pickled")
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    return {"adapter_model.safetensors": tiny_detector, "adapter_model.bin": pickled}


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A whole LLaVA and a LoRA in the original format, with their tower and base."""
    folder = tmp_path_factory.mktemp("originals")
    tower, base = original_checkpoints.write_tower(folder / "clip"), original_checkpoints.write_base(folder / "base")
    return {
        "whole": original_checkpoints.write_v15(folder / "whole", tower, suffix=".safetensors"),
        "lora": original_checkpoints.write_lora(folder / "lora", tower, base),
    }


@fuzz
@given(text=mutated(PROTECTOR).map(dump) | values.map(dump), kind=st.sampled_from(["detector", "detoxifier"]))
def test_protector_config(tmp_path, text, kind):
    write(tmp_path, CONFIG_NAME, text)

    def check(config):
        assert config.kind == kind
        assert 0 < config.threshold <= 1
        assert 0 < config.temperature < math.inf
        assert not isinstance(config.threshold, bool)
        assert config.num_layers is None or (type(config.num_layers) is int and config.num_layers >= 1)
        assert type(config.max_length) is int
        assert config.positive_label in ("safe", "harmful")
        assert config.base_model is None or isinstance(config.base_model, str)

    check_parser(lambda: ProtectorConfig.load(tmp_path, kind), check)


@fuzz
@given(labels=values | st.text(max_size=20).map(lambda name: {"0": name}) | mutated({"0": "harmful"}))
def test_labels(tmp_path, labels):
    write(tmp_path, "config.json", dump({"id2label": labels}))

    def check(meaning):
        assert meaning in ("safe", "harmful")

    check_parser(lambda: read_positive_label(tmp_path), check)


@fuzz
@given(data=st.data())
def test_adapter_config(tmp_path, tiny_detector, network, data):
    folder = copy_once(tiny_detector, tmp_path / "adapter")
    valid = read(tiny_detector / "adapter_config.json")
    # Most fields decide nothing; those that do are changed alone as well.
    field = data.draw(st.sampled_from([None, *valid]))
    text = dump({**valid, field: data.draw(values)} if field else data.draw(mutated(valid)))
    write(folder, "adapter_config.json", text)
    before = list_tree(tmp_path)

    def check(rows):
        assert rows is None
        config = json.loads(text)
        # The tensors are of rank 4, of these three modules, in two layers.
        assert not set(config["target_modules"]) ^ {"q_proj", "v_proj", "up_proj"} or isinstance(
            config["target_modules"], str
        )
        assert config.get("r", 8) == 4 or config.get("rank_pattern")
        assert config.get("lora_alpha", 8) > 0  # as PEFT reads a config without it

    check_parser(lambda: check_adapter(network, folder, "base"), check)
    assert list_tree(tmp_path) == before


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
@fuzz
@given(data=st.data())
def test_adapter_weights(tmp_path, adapters, network, shapes, name, data):
    folder = copy_once(adapters[name], tmp_path / "adapter")
    content = (adapters[name] / name).read_bytes()
    # The header is a small part of the file, and the more fragile one.
    front = data.draw(st.sampled_from([len(content), 3000]))
    write(folder, name, data.draw(damaged(content[:front])) + content[front:])
    check_parser(lambda: check_weights(network, folder, shapes))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
@some
@given(data=st.data())
def test_adapter_weights_beside_their_config(tmp_path, adapters, network, name, data):
    folder = copy_once(adapters[name], tmp_path / "adapter")
    write(folder, name, data.draw(damaged((adapters[name] / name).read_bytes())))
    check_parser(lambda: check_adapter(network, folder, "base"))


@fuzz
@given(data=st.data())
def test_base_config(tmp_path, tiny_lm, tiny_detector, data):
    base = copy_once(tiny_lm, tmp_path / "base")
    text = dump(data.draw(mutated(read(tiny_lm / "config.json"))))
    write(base, "config.json", text)

    def parse():
        checkpoint = open_checkpoint("detector", str(tiny_detector), str(base))
        return build_network_without_weights("detector", checkpoint)

    def check(built):
        assert built.score.weight.shape[0] == 1

    check_parser(parse, check)


@fuzz
@given(data=st.data())
def test_merged_classifier_config(tmp_path, tiny_classifier, data):
    folder = copy_once(tiny_classifier, tmp_path / "merged")
    valid = {**read(tiny_classifier / "config.json"), "id2label": {"0": "harmful"}, "label2id": {"harmful": 0}}
    write(folder, "config.json", dump(data.draw(mutated(valid))))

    def parse():
        return build_network_without_weights("detector", open_checkpoint("detector", str(folder)))

    check_parser(parse)


INDEX = {"metadata": {"total_size": 10}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}


@fuzz
@given(text=mutated(INDEX).map(dump) | values.map(dump) | damaged(dump(INDEX).encode()))
def test_weight_index(tmp_path, text):
    write(tmp_path, "model.safetensors.index.json", text)
    for number in (1, 2):
        write(tmp_path, f"model-{number}.safetensors", b"")

    def check(files):
        assert files
        assert all(file.parent == tmp_path and file.is_file() for file in files)

    check_parser(lambda: weight_files(tmp_path), check)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "legacy.bin"])
@fuzz
@given(data=st.data())
def test_weight_files(tmp_path, tmp_path_factory, name, data):
    from safetensors.torch import save_file

    source = tmp_path / "whole" / name
    if not source.exists():
        source.parent.mkdir(exist_ok=True)
        weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(3, dtype=torch.float16)}
        if name.endswith(".bin"):
            torch.save(weights, source, _use_new_zipfile_serialization=name != "legacy.bin")
        else:
            save_file(weights, source)
    file = write(tmp_path / "damaged", name, data.draw(damaged(source.read_bytes())))

    def check(tensors):
        for key, tensor in tensors.items():
            assert isinstance(key, str)
            # Every number can be read.
            assert tensor.double().sum().dtype == torch.float64

    check_parser(lambda: dict(iter_tensors([file])), check)


@pytest.mark.parametrize("form", ["whole", "lora"])
@fuzz
@given(data=st.data())
def test_original_llava(tmp_path, originals, form, data):
    folder = copy_once(originals[form], tmp_path / form)
    valid = read(originals[form] / "config.json")
    pictures = [name for name in valid if name.startswith(("mm_", "image_", "tie", "vocab", "model", "arch", "rope"))]
    field = data.draw(st.sampled_from([None, *pictures]))
    write(folder, "config.json", dump({**valid, field: data.draw(values)} if field else data.draw(mutated(valid))))

    def parse():
        checkpoint = recognise(folder)
        if checkpoint is None:
            return None
        source = OriginalSource(checkpoint)
        return source, expected_shapes(source, checkpoint.text_config())

    def check(found):
        if found is not None:
            source, shapes = found
            assert source.checkpoint.config.get("image_aspect_ratio") in (None, "pad", "square")
            assert "model.embed_tokens.weight" in shapes
            assert isinstance(source.checkpoint.select_layer, int)

    check_parser(parse, check)


@pytest.fixture(scope="session")
def original_base(originals):
    """The language model of the LoRA in the original format, without weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(recognise(originals["lora"]).text_config())


@fuzz
@given(data=st.data())
def test_original_lora_config(tmp_path, originals, original_base, data):
    folder = copy_once(originals["lora"], tmp_path / "lora")
    write(folder, "adapter_config.json", dump(data.draw(mutated(read(originals["lora"] / "adapter_config.json")))))

    def parse():
        deltas = LoraDeltas(folder)
        check_adapter(original_base, folder, "base", named_default=True)
        return deltas

    def check(deltas):
        assert 0 < deltas.scale < math.inf

    check_parser(parse, check)


def check_finite(tensors):
    """Assert that every number of an accepted file is one."""
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


@pytest.fixture(scope="session")
def original_shapes(originals, original_base):
    """The tensors that the LoRA in the original format must have."""
    folder = originals["lora"]
    return shapes_of_adapter(original_base, build_lora_config(folder, with_head=False), folder, "base")


@fuzz
@given(data=st.data())
def test_original_lora_weights(tmp_path, originals, original_base, original_shapes, data):
    folder = copy_once(originals["lora"], tmp_path / "lora")
    write(folder, "adapter_model.bin", data.draw(damaged((originals["lora"] / "adapter_model.bin").read_bytes())))

    def parse():
        opened = check_weights(original_base, folder, original_shapes)
        return {key: opened.tensor(key) for key in opened.keys}

    check_parser(parse, check_finite)


@some
@given(data=st.data())
def test_original_lora_weights_beside_their_config(tmp_path, originals, original_base, data):
    folder = copy_once(originals["lora"], tmp_path / "lora")
    write(folder, "adapter_model.bin", data.draw(damaged((originals["lora"] / "adapter_model.bin").read_bytes())))

    def parse():
        check_adapter(original_base, folder, "base", named_default=True)
        return read_tensors(folder / "adapter_model.bin")

    check_parser(parse, check_finite)


@pytest.fixture(scope="session")
def original_lora(originals):
    """The LoRA in the original format, recognised."""
    return OriginalSource(recognise(originals["lora"]))


@fuzz
@given(data=st.data())
def test_original_trained_weights(tmp_path, originals, original_lora, data):
    name = "non_lora_trainables.bin"
    write(tmp_path, name, data.draw(damaged((originals["lora"] / name).read_bytes())))
    source = copy.copy(original_lora)  # read once each: a source keeps what it has read
    source.checkpoint = dataclasses.replace(original_lora.checkpoint, folder=tmp_path)
    check_parser(lambda: source.trained, check_finite)


@fuzz
@given(data=st.data())
def test_llava_config(tmp_path, tiny_llava, data):
    folder = copy_once(tiny_llava, tmp_path / "llava")
    write(folder, "config.json", dump(data.draw(mutated(read(tiny_llava / "config.json")))))

    def parse():
        check_model_files(folder)
        return load_processor(str(folder), "tiny")

    check_parser(parse, check_processor)


def check_processor(processor):
    """Assert that a picture gets as many positions as the tower of the tiny LLaVA has features."""
    from PIL import Image

    if processor is not None and getattr(processor, "patch_size", None) == 16:
        out = processor(text=processor.image_token, images=Image.new("RGB", (70, 20)), return_tensors="pt")
        assert out["pixel_values"].shape[0] == 1


@st.composite
def processor_configs(draw, valid):
    """Draw a processor's config with changes anywhere, or in what decides most: how a picture is prepared."""
    if draw(st.booleans()):
        return draw(mutated(valid))
    return {**valid, "image_processor": draw(mutated(valid["image_processor"]))}


@pytest.fixture(scope="session")
def llava_config(tiny_llava):
    """The config of the tiny LLaVA, and the id that stands for its pictures."""
    config = AutoConfig.from_pretrained(tiny_llava)
    assert config.image_token_id == AutoTokenizer.from_pretrained(tiny_llava).convert_tokens_to_ids("<image>")
    return config


def check_prepared(processor, config):
    """Assert that a picture becomes what the tower and the language model of the tiny LLaVA take."""
    from PIL import Image

    picture = Image.linear_gradient("L").resize((70, 20)).convert("RGB")
    out = processor(text=processor.image_token, images=picture, return_tensors="pt")
    assert out["pixel_values"].shape == (1, 3, 32, 32)
    assert out["pixel_values"].isfinite().all()
    assert (out["input_ids"] == config.image_token_id).sum() == 4


def write_processor_config(tmp_path, tiny_llava, data):
    """Draw a processor config into a copy of the tiny LLaVA and return the copy."""
    folder = copy_once(tiny_llava, tmp_path / "llava")
    drawn = data.draw(processor_configs(read(tiny_llava / "processor_config.json")))
    write(folder, "processor_config.json", dump(drawn))
    return folder


@fuzz
@given(data=st.data())
def test_processor_config(tmp_path, tiny_llava, llava_config, data):
    folder = write_processor_config(tmp_path, tiny_llava, data)
    check_parser(
        lambda: load_processor_of(llava_config, str(folder), "tiny"), lambda found: check_prepared(found, llava_config)
    )


@some
@given(data=st.data())
def test_processor_config_beside_its_model(tmp_path, tiny_llava, llava_config, data):
    folder = write_processor_config(tmp_path, tiny_llava, data)
    check_parser(lambda: load_processor(str(folder), "tiny"), lambda found: check_prepared(found, llava_config))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@fuzz
@given(data=st.data())
def test_tokenizer(tmp_path, tiny_lm, name, data):
    folder = copy_once(tiny_lm, tmp_path / "lm")
    content = (tiny_lm / name).read_bytes()
    valid = json.loads(content)
    text = data.draw(mutated(valid).map(dump) if name == "tokenizer_config.json" else damaged(content))
    write(folder, name, text)
    rows = read(tiny_lm / "config.json")["vocab_size"]

    def check(tokenizer):
        assert max(tokenizer("Mix flour [PAD] <s>")["input_ids"], default=0) < rows
        assert tokenizer.pad_token_id < rows

    check_parser(lambda: load_tokenizer(str(folder)), check)


@fuzz
@given(text=mutated(read(VISION_DESCRIPTION)).map(dump) | values.map(dump))
def test_vision_description(tmp_path, text):
    path = write(tmp_path, "vision.json", text)

    def check(description):
        assert isinstance(description["vision_config"]["model_type"], str)
        assert isinstance(description["language_model"], dict)
        assert all(isinstance(note, str) for note in description["notes"])

    check_parser(lambda: read_vision_description(path), check)
