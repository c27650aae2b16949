import json
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llava.errors import InputError
from llava.model.llava_checkpoints.compose import composed_folder, random_projector, release_projector
from llava.model.loading import load_mllm
from tests.model.original_checkpoints import write_base, write_tower


@pytest.fixture
def parts(tmp_path, cache):
    return str(write_base(tmp_path / "base")), str(write_tower(tmp_path / "clip"))


def test_a_new_llava_has_the_weights_of_its_parts(parts):
    from transformers import AutoModelForCausalLM, CLIPVisionModel

    base, tower = parts
    folder = composed_folder(base, tower)
    weights = load_file(folder / "model.safetensors")
    # Token embeddings have grown by <image>; all else is as it was.
    for key, value in AutoModelForCausalLM.from_pretrained(base).state_dict().items():
        found = weights[f"language_model.{key}"]
        assert torch.equal(found[: len(value)], value), key
    for key, value in CLIPVisionModel.from_pretrained(tower).state_dict().items():
        assert torch.equal(weights[f"vision_tower.vision_model.{key.removeprefix('vision_model.')}"], value), key
    model = load_mllm(folder, device="cpu")
    assert model.processor.image_processor.do_pad
    assert model.model.config.projector_hidden_act == "gelu"
    assert model.generate(["Hi"], [Image.new("RGB", (30, 20))], max_new_tokens=2)


def test_it_is_built_once_and_anew_for_another_seed(parts):
    first = composed_folder(*parts)
    stamp = (first / "config.json").stat().st_mtime_ns
    assert composed_folder(*parts) == first
    assert (first / "config.json").stat().st_mtime_ns == stamp
    second = composed_folder(*parts, seed=1)
    key = "multi_modal_projector.linear_1.weight"
    assert not torch.equal(*(load_file(folder / "model.safetensors")[key] for folder in (first, second)))


def test_the_prompt_can_be_chosen(parts):
    template = load_mllm(composed_folder(*parts, prompt_version="v0"), device="cpu").processor.chat_template
    assert "Human: " in template
    assert "USER: " in load_mllm(composed_folder(*parts), device="cpu").processor.chat_template


def test_a_language_model_keeps_its_own_prompt(parts, tmp_path):
    """A chat template that knows no pictures gets them put into the text, and texts come out as before."""
    from transformers import AutoTokenizer

    base, tower = parts
    own = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    own += "{% if add_generation_prompt %}<assistant> {% endif %}"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = own
    tokenizer.save_pretrained(base)
    folder = composed_folder(base, tower)
    model = load_mllm(folder, device="cpu")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    plain = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert plain == "<user> Hi</s>\n<assistant> Yes</s>\n<assistant> "
    parted: list[dict[str, Any]] = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    for messages in (turns, parted):
        assert model.processor.apply_chat_template(messages, add_generation_prompt=True) == plain
    parted[0]["content"].insert(0, {"type": "image"})
    shown = model.processor.apply_chat_template(parted, add_generation_prompt=True)
    assert shown == plain.replace("Hi", "<image>\nHi")
    state = model.model.model.multi_modal_projector.state_dict()
    release_projector(tmp_path / "r", model.model.config, model.processor, state, base=base, vision_tower=tower)
    assert load_mllm(tmp_path / "r", device="cpu").processor.chat_template == model.processor.chat_template


def test_a_random_projector_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    weights = random_projector(24, 32, seed=0)
    assert torch.equal(torch.rand(1), expected)
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "0.weight": (32, 24),
        "0.bias": (32,),
        "2.weight": (32, 32),
        "2.bias": (32,),
    }


def test_a_release_becomes_the_same_model_again(parts, tmp_path):
    base, tower = parts
    whole = load_mllm(composed_folder(base, tower), device="cpu")
    state = whole.model.model.multi_modal_projector.state_dict()
    release_projector(tmp_path / "release", whole.model.config, whole.processor, state, base=base, vision_tower=tower)
    again = load_mllm(tmp_path / "release", device="cpu")
    for (name, value), found in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(found, value), name
    assert again.processor.chat_template == whole.processor.chat_template


def test_a_release_without_names_says_what_to_give(parts, tmp_path):
    whole = load_mllm(composed_folder(*parts), device="cpu")
    state = whole.model.model.multi_modal_projector.state_dict()
    release_projector(tmp_path / "r", whole.model.config, whole.processor, state, base="", vision_tower="")
    with pytest.raises(InputError, match="give --base"):
        load_mllm(tmp_path / "r")
    with pytest.raises(InputError, match="give --vision-tower"):
        load_mllm(tmp_path / "r", base=parts[0])


@pytest.mark.parametrize(
    ("change", "message"), [({"model_type": "gpt2"}, "is gpt2; LLaVA can be built on"), (None, "is gpt2|check --base")]
)
def test_other_language_models_are_refused(parts, tmp_path, change, message):
    base, tower = parts
    if change is None:
        base = str(tmp_path / "absent")
    else:
        path = tmp_path / "base" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        composed_folder(base, tower)


def test_a_folder_that_is_no_tower_is_refused(parts):
    with pytest.raises(InputError, match="vision tower"):
        composed_folder(parts[0], parts[0])
