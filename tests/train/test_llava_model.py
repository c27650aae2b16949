import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from llava.errors import InputError
from llava.train.llava_model import (
    LlavaModelArguments,
    find_llava,
    gives_features,
    load_llava,
    load_llava_processor,
    vision_in_graph,
)


@pytest.fixture
def model(tiny_llava):
    return LlavaForConditionalGeneration.from_pretrained(tiny_llava)


def test_weights_behind_the_features_are_known_by_their_gradient(model, tiny_llava):
    """The rule against the truth: a weight of the tower has a gradient exactly where it gives features."""
    processor = load_llava_processor(find_llava(LlavaModelArguments(base=str(tiny_llava)), seed=0))
    inputs = processor(text="<image>\nbread", images=Image.new("RGB", (30, 20), "red"), return_tensors="pt")
    for layer in (-2, -1, 1, [0, -2]):
        model.config.vision_feature_layer = layer
        model.zero_grad()
        pixels = inputs["pixel_values"]
        chosen = [layer] if isinstance(layer, int) else layer
        hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        sum(hidden[number].square().sum() for number in chosen).backward()
        for name, parameter in model.model.vision_tower.named_parameters():
            assert gives_features(f"vision_tower.{name}", model.config) is (parameter.grad is not None), (layer, name)


def test_a_batch_of_text_gives_every_trained_weight_a_gradient_of_zero(model):
    ids = torch.tensor([[5, 6, 7]])
    expected = model(input_ids=ids).logits
    with vision_in_graph(model, active=True):
        logits = model(input_ids=ids).logits
    assert torch.equal(logits, expected)
    logits.sum().backward()
    for name, parameter in model.named_parameters():
        if "multi_modal_projector" in name:
            assert parameter.grad is not None, name
            assert not parameter.grad.any()
    model.zero_grad()
    model(input_ids=ids).logits.sum().backward()
    assert model.model.multi_modal_projector.linear_1.weight.grad is None


def test_a_trained_tower_takes_part_too(model):
    with vision_in_graph(model, active=True):
        model(input_ids=torch.tensor([[5, 6, 7]])).logits.sum().backward()
    gradients = {name: p.grad for name, p in model.model.vision_tower.named_parameters()}
    for name, gradient in gradients.items():
        if gives_features(f"vision_tower.{name}", model.config):
            assert gradient is not None, name
            assert not gradient.any()


def test_full_fine_tuning_loads_in_single_precision(tiny_llava):
    arguments = LlavaModelArguments(base=str(tiny_llava), base_dtype="bfloat16")
    model = load_llava(find_llava(arguments, seed=0), arguments, seed=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert arguments.frozen_base is False


def test_a_base_without_chat_template_gets_the_v1_prompt(tiny_llava, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_llava, tmp_path / "plain")
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    processor = load_llava_processor(find_llava(LlavaModelArguments(base=str(folder)), seed=0))
    assert "USER: " in processor.chat_template


def test_other_families_are_refused(tmp_path):
    from tests.model.families import build_llava_next

    folder = build_llava_next(tmp_path / "next")
    with pytest.raises(InputError, match="has a LlavaNextProcessor; only LLaVA"):
        load_llava_processor(find_llava(LlavaModelArguments(base=str(folder)), seed=0))


def test_the_embedded_model_is_a_llava_and_its_base_a_language_model():
    from llava.model.embedded.stack import BASE_ID
    from llava.train.llava_model import _language_model

    assert _language_model(LlavaModelArguments(base="embedded")) is None
    assert _language_model(LlavaModelArguments(base="embedded", stage="pretrain", vision_tower="clip")) == BASE_ID
