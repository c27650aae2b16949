"""Original LLaVA checkpoints become HF-native ones, and back, with the same logits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llava.cli.app import main
from llava.errors import InputError
from llava.model.answering.decoding import decode_rows
from llava.model.files.tensors import iter_tensors, weight_files
from llava.model.llava_checkpoints import parity
from llava.model.llava_checkpoints.convert import convert_checkpoint
from llava.model.llava_checkpoints.format import recognise
from llava.model.llava_checkpoints.parity import OriginalLlava, logit_difference
from llava.model.llava_checkpoints.source import OriginalSource
from llava.model.loading import load_mllm

FORMS = [
    *("v15_bin", "v15_safetensors", "v15_half", "v1_linear", "tower_inside"),
    *("lora", "lora_plain_keys", "projector", "projector_tokens"),
]
PICTURE = Image.linear_gradient("L").convert("RGB").resize((60, 30))


def weights_of(folder) -> dict[str, torch.Tensor]:
    return dict(iter_tensors(weight_files(folder)))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_loads_is_guarded_and_computes_the_same(form, originals, cache, check_guarded):
    model = load_mllm(originals[form], device="cpu", dtype="float32")
    check_guarded(model, [PICTURE, None])
    original = OriginalLlava(OriginalSource(recognise(originals[form])))
    for image in (PICTURE, None):
        inputs = model.encode(["What is in this picture?"], [image] if image else None)
        ids = parity._collapse(inputs["input_ids"][0].tolist(), model.model.config.image_token_id)
        assert ids.count(-200) == (1 if image else 0)
        with torch.inference_mode():
            ours = model.model(**inputs).logits[0]
        theirs = original.logits(ids, inputs.get("pixel_values"))
        # Rows of tokens that neither the base nor the checkpoint has are nobody's to compare.
        rows = recognise(originals[form]).config["vocab_size"]
        assert ours.std() > 0.1
        torch.testing.assert_close(ours[:, :rows], theirs[:, :rows], atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["v15_bin", "v1_linear", "lora"])
def test_there_and_back_gives_the_same_weights(form, originals, tmp_path):
    assert convert_checkpoint(originals[form], tmp_path / "hf") <= 1e-4
    assert convert_checkpoint(tmp_path / "hf", tmp_path / "back", to="original") <= 1e-4
    source = dict(OriginalSource(recognise(originals[form])).tensors())
    back = dict(OriginalSource(recognise(tmp_path / "back")).tensors())
    assert back.keys() == {key for key in source if not key.endswith("inv_freq")}
    assert all(torch.equal(back[key], source[key]) for key in back)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["mm_vision_tower"] == str(tmp_path / "back" / "vision_tower")
    assert config["architectures"] == ["LlavaLlamaForCausalLM"]
    again = load_mllm(tmp_path / "back", device="cpu")
    first = load_mllm(tmp_path / "hf", device="cpu")
    assert again.generate(["Hi"], [PICTURE], max_new_tokens=6) == first.generate(["Hi"], [PICTURE], max_new_tokens=6)


def test_the_command_converts_there_and_back(originals, tmp_path, capsys):
    for source, output, flags in (
        (originals["v15_bin"], tmp_path / "hf", []),
        (tmp_path / "hf", tmp_path / "back", ["--to", "original"]),
    ):
        assert main(["convert", str(source), "--output", str(output), *flags]) == 0
        assert f"{output}: largest logit difference" in capsys.readouterr().out
    assert recognise(tmp_path / "back").config["architectures"] == ["LlavaLlamaForCausalLM"]
    assert main(["convert", str(tmp_path / "hf"), "--output", str(tmp_path / "back"), "--to", "original"]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_written_form_is_the_released_one(originals, tmp_path):
    convert_checkpoint(originals["v15_bin"], tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    vocabulary = json.loads((originals["v15_bin"] / "config.json").read_text())["vocab_size"]
    assert (config["model_type"], config["vision_feature_layer"]) == ("llava", -2)
    assert config["image_token_index"] == vocabulary
    keys = weights_of(tmp_path / "hf")
    assert {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"} <= keys.keys()
    assert "vision_tower.vision_model.embeddings.class_embedding" in keys
    assert keys["language_model.lm_head.weight"].shape[0] == vocabulary + 1


def test_hf_native_llava_with_tokens_after_image_keeps_its_rows(tiny_llava, tmp_path, check_guarded):
    assert convert_checkpoint(tiny_llava, tmp_path / "original", to="original") <= 1e-4
    config = json.loads((tmp_path / "original" / "config.json").read_text())
    vocabulary = json.loads((tiny_llava / "config.json").read_text())["text_config"]["vocab_size"]
    assert (config["mm_projector_type"], config["vocab_size"]) == ("mlp2x_gelu", vocabulary)
    assert convert_checkpoint(tmp_path / "original", tmp_path / "hf") <= 1e-4
    one, two = (load_mllm(folder, device="cpu") for folder in (tiny_llava, tmp_path / "hf"))
    check_guarded(one, [PICTURE, None])
    assert one.generate(["Hi"], [PICTURE], max_new_tokens=6) == two.generate(["Hi"], [PICTURE], max_new_tokens=6)


def test_pictures_are_padded_as_the_original_pads(originals, cache):
    model = load_mllm(originals["v15_bin"], device="cpu")
    picture = Image.effect_noise((60, 30), 80).convert("RGB")
    pixels = model.encode(["Hi"], [picture])["pixel_values"][0]
    square = Image.new("RGB", (60, 60), (122, 116, 104))
    square.paste(picture, (0, 15))
    small = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = torch.from_numpy((small - mean) / std).permute(2, 0, 1).float()
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)
    cropped = load_mllm(originals["v1_linear"], device="cpu").encode(["Hi"], [picture])["pixel_values"][0]
    assert (cropped - expected).abs().max() > 0.1


def test_prompts_follow_the_config(originals, cache, tmp_path):
    v15 = load_mllm(originals["v15_bin"], device="cpu")
    text = v15.tokenizer.decode(v15.encode(["Hi"], [PICTURE])["input_ids"][0])
    assert text.endswith(f"USER: {'<image>' * 4}\nHi ASSISTANT:")
    assert text.startswith("<s>")
    v1 = load_mllm(originals["v1_linear"], device="cpu")
    text = v1.tokenizer.decode(v1.encode(["Hi"], [PICTURE])["input_ids"][0])
    assert f"USER: <im_start>{'<image>' * 4}<im_end>\nHi ASSISTANT:" in text
    convert_checkpoint(originals["v15_bin"], tmp_path / "v0", prompt_version="v0")
    v0 = load_mllm(tmp_path / "v0", device="cpu")
    assert v0.stop_strings == ["###"]
    assert "###Human: " in v0.tokenizer.decode(v0.encode(["Hi"], None)["input_ids"][0])
    assert v0._decode(v0.tokenizer(" Sure.\n###Human: more", add_special_tokens=False)["input_ids"]) == "Sure."


def test_the_image_token_is_never_spoken(originals, cache):
    model = load_mllm(originals["v15_bin"], device="cpu")
    image = model.model.config.image_token_id
    with torch.no_grad():
        model.model.get_output_embeddings().weight[image] = 1e3 * model.model.get_output_embeddings().weight[5]
    inputs = model.encode(["Hi"], None)
    plain = model.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert image in plain[0, inputs["input_ids"].shape[1] :].tolist()
    out = decode_rows(model.model, inputs, torch.tensor([8]), ends=[], defaults=model.defaults)
    assert len(out[0]) == 8
    assert image not in out[0]
    assert "<image>" not in model.generate(["Hi"], None, max_new_tokens=8)[0]


def test_the_result_is_cached_by_content(originals, cache, tmp_path):
    folder = shutil.copytree(originals["v15_bin"], tmp_path / "copy")
    load_mllm(folder, device="cpu")
    built = [path for path in cache.iterdir() if path.is_dir()]
    load_mllm(folder, device="cpu")
    assert [path for path in cache.iterdir() if path.is_dir()] == built
    shard = folder / "pytorch_model-00001-of-00002.bin"
    weights = torch.load(shard, weights_only=True)
    torch.save({key: value * 2 for key, value in weights.items()}, shard)
    load_mllm(folder, device="cpu")
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), r"missing: model\.layers\.1\.mlp\.up_proj\.weight"),
        (lambda w: w.update({"model.layers.9.x": torch.ones(1)}), r"unknown: model\.layers\.9\.x"),
        (lambda w: w.update({"model.norm.weight": torch.ones(3)}), r"of another shape: model\.norm\.weight"),
        (lambda w: w.pop("model.mm_projector.2.bias"), r"missing: model\.mm_projector\.2\.bias"),
    ],
)
def test_a_wrong_checkpoint_names_its_keys(originals, tmp_path, cache, change, named):
    folder = shutil.copytree(originals["v15_safetensors"], tmp_path / "copy")
    weights = weights_of(folder)
    change(weights)
    for file in folder.glob("model*"):
        file.unlink()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match=named) as caught:
        load_mllm(folder, device="cpu")
    assert "\n" not in str(caught.value)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_the_self_check_sees_a_wrong_weight(originals, tmp_path):
    source = OriginalSource(recognise(originals["v1_linear"]))
    convert_checkpoint(originals["v1_linear"], tmp_path / "hf")
    assert logit_difference(source, tmp_path / "hf") <= 1e-4
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    weights["multi_modal_projector.linear_2.bias"][0] += 0.01
    save_file(weights, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
    assert logit_difference(source, tmp_path / "hf") > 1e-4


@pytest.mark.parametrize("difference", [2e-4, float("nan")])
@pytest.mark.parametrize("to", ["hf", "original"])
def test_a_failed_self_check_leaves_nothing(originals, tiny_llava, tmp_path, monkeypatch, difference, to):
    monkeypatch.setattr(parity, "logit_difference", lambda *_: difference)
    with pytest.raises(RuntimeError, match="nothing was written"):
        convert_checkpoint(originals["v15_bin"] if to == "hf" else tiny_llava, tmp_path / "out" / "x", to=to)
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_requests_are_named(originals, tiny_llava, tiny_lm, tmp_path):
    def refusal(*arguments, **options):
        with pytest.raises(InputError) as caught:
            convert_checkpoint(*arguments, **options)
        return str(caught.value)

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert "--to is pt" in refusal(originals["lora"], tmp_path / "x", to="pt")
    assert "--prompt-version is v9" in refusal(originals["lora"], tmp_path / "x", prompt_version="v9")
    assert "is not empty" in refusal(originals["lora"], tmp_path / "full")
    assert "nothing to convert" in refusal(tiny_llava, tmp_path / "x")
    assert "already" in refusal(originals["v15_bin"], tmp_path / "x", to="original")
    assert "its model_type is llama" in refusal(tiny_lm, tmp_path / "x", to="original")
    assert "does not exist" in refusal(tmp_path / "no such", tmp_path / "x")
    assert (tmp_path / "full" / "file").read_text() == "mine"
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_peak_memory_stays_below_the_checkpoints_size(tmp_path):
    """A 0.6 GB checkpoint in two shards converts and is checked in less than 1.3 times its size."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.model import original_checkpoints as oc\n"
        "import torch\n"
        "size = dict(hidden_size=1024, intermediate_size=2816, num_hidden_layers=24, num_attention_heads=16)\n"
        "oc.HIDDEN = 1024; oc.LANGUAGE.update(size, num_key_value_heads=16)\n"
        "root = Path(sys.argv[1])\n"
        "oc.write_v15(root / 'source', oc.write_tower(root / 'clip'), dtype=torch.float16)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    program = (
        "import sys\n"
        "import torch, transformers\n"
        "from transformers import CLIPVisionModel, LlamaForCausalLM, LlavaForConditionalGeneration, LlavaProcessor\n"
        "from llava.model.llava_checkpoints import parity, to_hf, to_original\n"
        "from llava.model.llava_checkpoints.convert import convert_checkpoint\n"
        "def high():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) * 1024\n"
        "before = high()\n"
        "assert convert_checkpoint(sys.argv[1] + '/source', sys.argv[1] + '/hf') <= 1e-4\n"
        "print(high() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True)
    size = sum(file.stat().st_size for file in (tmp_path / "source").glob("*.bin"))
    assert size > 500e6
    assert int(done.stdout.splitlines()[-1]) <= 1.3 * size
    program = program.replace("'/source', sys.argv[1] + '/hf'", "'/hf', sys.argv[1] + '/back', to='original'")
    back = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True)
    assert (tmp_path / "back" / "config.json").is_file()
    assert int(back.stdout.splitlines()[-1]) <= 1.3 * size
