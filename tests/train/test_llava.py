import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llava.data.images import open_image
from llava.model.loading import load_mllm
from llava.train import llava
from llava.train.llava import main
from tests.train.conversations import STAGES, flags, picture_row, text_row, write_conversations, write_pictures
from tests.train.samples import SINGLE_PRECISION

MODEL_FILES = {
    *("config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json"),
    *("tokenizer_config.json", "chat_template.jinja", "train_config.yaml"),
}
ADAPTER_FILES = {"adapter_config.json", "adapter_model.safetensors", "train_config.yaml"}
PROJECTOR_FILES = {
    "config.json",
    "mm_projector.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}


@pytest.fixture
def data(tmp_path):
    return write_conversations(tmp_path / "data")


@pytest.fixture
def trainers(monkeypatch):
    """Every trainer built, with a copy of its parameters from before training."""
    built = []
    original = llava.build_trainer

    def build(*args, **kwargs):
        trainer = original(*args, **kwargs)
        built.append((trainer, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}))
        return trainer

    monkeypatch.setattr(llava, "build_trainer", build)
    return built


def is_trained(name, stage):
    """What each way of training is to change, said independently of the code."""
    if stage == "lora":
        return "lora_" in name or "multi_modal_projector.modules_to_save" in name
    if "multi_modal_projector" in name:
        return True
    # Two layers, features from hidden state -2: what comes out of the first layer.
    tower = "vision_tower" in name and "layers.1." not in name and "post_layernorm" not in name
    return {"pretrain": False, "full": "vision_tower" not in name, "tower": "vision_tower" not in name or tower}[stage]


@pytest.mark.parametrize("stage", STAGES)
def test_smoke(tiny_llava, data, tmp_path, trainers, stage):
    """Finite falling loss; what the stage trains moved, and nothing else did; exact files."""
    output = tmp_path / "out"
    more = [*STAGES[stage], "--logging-steps", "1", "--num-train-epochs", "4", "--eval-data", str(data)]
    assert main(flags(tiny_llava, data, output, *more)) == 0
    ((trainer, before),) = trainers
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 24  # four batches with pictures and two without, four times
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert sum(losses[-6:]) < sum(losses[:6])
    for name, parameter in trainer.model.named_parameters():
        assert parameter.requires_grad is is_trained(name, stage), name
        assert torch.equal(parameter, before[name]) is not is_trained(name, stage), name
    files = {path.name for path in output.iterdir()}
    assert files == {"metrics.json"} | (ADAPTER_FILES if stage == "lora" else MODEL_FILES) | (
        {"mm_projector"} if stage == "pretrain" else set()
    )
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["n"] == 24
    assert metrics["token_loss"] < max(losses)


@pytest.mark.parametrize("stage", ["pretrain", "full", "lora"])
def test_the_result_loads_with_the_same_logits(tiny_llava, data, tmp_path, trainers, stage):
    output = tmp_path / "out"
    assert main(flags(tiny_llava, data, output, *STAGES[stage], *SINGLE_PRECISION)) == 0
    ((trainer, _),) = trainers
    trained = trainer.model.cpu().eval()
    loaded = load_mllm(output, device="cpu", dtype="float32")
    picture = open_image(data.parent / "red.png")
    for pictures in ([picture], None):
        inputs = loaded.encode(["Which colour?"], pictures)
        with torch.inference_mode():
            expected = trained(**inputs).logits
            found = loaded.model(**inputs).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (loaded.processor.chat_template or "") == load_mllm(tiny_llava).processor.chat_template


def test_an_adapter_is_read_by_peft_alone(tiny_llava, data, tmp_path, trainers):
    """Files that PEFT users know: no code of ours is needed to put them on the base."""
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    output = tmp_path / "out"
    more = ["--lora", "--base-name", str(tiny_llava), *SINGLE_PRECISION]
    assert main(flags(tiny_llava, data, output, *more)) == 0
    settings = json.loads((output / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tiny_llava)
    assert settings["modules_to_save"] == ["multi_modal_projector"]
    keys = load_file(output / "adapter_model.safetensors").keys()
    assert not any("vision_tower" in key for key in keys)
    assert "base_model.model.model.multi_modal_projector.linear_1.weight" in keys
    model = PeftModel.from_pretrained(LlavaForConditionalGeneration.from_pretrained(tiny_llava), output)
    ((trainer, _),) = trainers
    expected = dict(trainer.model.cpu().named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=0, atol=0)


def test_stage_one_releases_the_projector_alone(tiny_llava, data, tmp_path):
    output = tmp_path / "out"
    assert main(flags(tiny_llava, data, output, "--stage", "pretrain")) == 0
    release = output / "mm_projector"
    assert {path.name for path in release.iterdir()} == PROJECTOR_FILES
    whole = load_file(output / "model.safetensors")
    alone = load_file(release / "mm_projector.safetensors")
    pairs = {"0.weight": "linear_1.weight", "0.bias": "linear_1.bias"}
    pairs |= {"2.weight": "linear_2.weight", "2.bias": "linear_2.bias"}
    assert len(alone) == len(pairs)
    for old, new in pairs.items():
        (key,) = [key for key in whole if key.endswith(f"multi_modal_projector.{new}")]
        assert torch.equal(alone[f"model.mm_projector.{old}"], whole[key])


def test_what_the_original_format_cannot_express_is_not_released(tiny_llava, data, tmp_path, caplog):
    base = shutil.copytree(tiny_llava, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "projector_hidden_act": "relu"}))
    with caplog.at_level("INFO"):
        assert main(flags(base, data, tmp_path / "out", "--stage", "pretrain")) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == MODEL_FILES
    assert "mm_projector is not written" in caplog.text


def test_a_new_model_goes_through_both_stages(data, tmp_path, monkeypatch):
    """Language model and tower become a LLaVA; its projector's release becomes the same LLaVA; stage 2 goes on."""
    from tests.model.original_checkpoints import write_base, write_tower

    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    base, tower = write_base(tmp_path / "base"), write_tower(tmp_path / "clip")
    first, second = tmp_path / "first", tmp_path / "second"
    new = ["--stage", "pretrain", "--vision-tower", str(tower), *SINGLE_PRECISION]
    assert main(flags(base, data, first, *new)) == 0
    whole = load_mllm(first, device="cpu", dtype="float32")
    released = load_mllm(first / "mm_projector", device="cpu", dtype="float32")
    inputs = whole.encode(["Which colour?"], [open_image(data.parent / "red.png")])
    again = released.encode(["Which colour?"], [open_image(data.parent / "red.png")])
    for name, value in inputs.items():
        assert torch.equal(again[name], value), name
    with torch.inference_mode():
        torch.testing.assert_close(released.model(**again).logits, whole.model(**inputs).logits, rtol=0, atol=1e-6)
    assert main(flags(first, data, second)) == 0
    assert {path.name for path in second.iterdir()} == MODEL_FILES


def test_an_original_checkpoint_is_converted_and_trained(data, tmp_path, monkeypatch):
    from tests.model.original_checkpoints import write_tower, write_v15

    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    base = write_v15(tmp_path / "v15", write_tower(tmp_path / "clip"))
    assert main(flags(base, data, tmp_path / "out", "--lora")) == 0
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    assert load_mllm(tmp_path / "out", device="cpu").generate(["Hi"], max_new_tokens=2)


@pytest.mark.parametrize("stage", ["full", "lora"])
def test_two_rows_are_learned_by_heart_and_answered(tiny_llava, tmp_path, stage):
    """Trained by the training code, asked through the code of inference: both answer and stop."""
    folder = write_pictures(tmp_path / "data")
    rows = [picture_row(0, "red", answer="water and salt"), text_row(1, "Say it.", "flour and yeast")]
    (folder / "rows.json").write_text(json.dumps(rows))
    more = [*STAGES[stage], "--per-device-train-batch-size", "1", "--num-train-epochs", "60", "--lora-r", "16"]
    # Gentler than the other tests: at their rate the last bits of a product decide where the training ends up.
    more += ["--lora-dropout", "0", "--lora-alpha", "32", "--learning-rate", "3e-3"]
    assert main(flags(tiny_llava, folder / "rows.json", tmp_path / "out", *more)) == 0
    model = load_mllm(tmp_path / "out", device="cpu", dtype="float32")
    answers = model.generate(["Which colour?", "Say it."], [open_image(folder / "red.png"), None], max_new_tokens=30)
    assert answers == ["water and salt", "flour and yeast"]


@pytest.mark.parametrize("stage", ["pretrain", "full", "lora"])
def test_resuming_after_a_kill_equals_the_unbroken_run(tiny_llava, data, tmp_path, stage):
    """The weights that count are in the checkpoint, under names that are found again."""

    def run(output, *more):
        steps = ["--save-strategy", "steps", "--save-steps", "2", "--save-total-limit", "9", *STAGES[stage]]
        assert main(flags(tiny_llava, data, output, *steps, "--lora-dropout", "0.2", *more)) == 0
        return load_file(output / ("adapter_model.safetensors" if stage == "lora" else "model.safetensors"))

    unbroken = run(tmp_path / "whole")
    killed = tmp_path / "killed"
    for step in (2, 4):
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", killed / f"checkpoint-{step}")
    (killed / "checkpoint-6").mkdir()
    resumed = run(killed, "--resume")
    assert resumed.keys() == unbroken.keys()
    for name, tensor in unbroken.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=1e-7)


def test_a_checkpoint_holds_what_is_trained(tiny_llava, data, tmp_path):
    more = ["--stage", "pretrain", "--save-strategy", "epoch"]
    assert main(flags(tiny_llava, data, tmp_path / "out", *more)) == 0
    (saved,) = (tmp_path / "out").glob("checkpoint-*/model.safetensors")
    parts = [f"linear_{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")]
    assert load_file(saved).keys() == {f"model.multi_modal_projector.{part}" for part in parts}


@pytest.mark.parametrize("stage", ["pretrain", "lora"])
def test_gradient_checkpointing_changes_nothing_but_memory(tiny_llava, data, tmp_path, stage):
    found = []
    for name, more in (("plain", []), ("saving", ["--gradient-checkpointing", "true"])):
        steps = ["--max-steps", "3", "--lora-dropout", "0", *STAGES[stage]]
        assert main(flags(tiny_llava, data, tmp_path / name, *steps, *more)) == 0
        (written,) = (tmp_path / name).glob("*model.safetensors")
        found.append(load_file(written))
    for key, tensor in found[0].items():
        torch.testing.assert_close(found[1][key], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", ["pretrain", "lora"])
@pytest.mark.parametrize("autocast", ["true", "false"])
def test_a_half_precision_base_keeps_trained_weights_in_single(tiny_llava, data, tmp_path, trainers, stage, autocast):
    more = [*STAGES[stage], "--base-dtype", "bfloat16", "--bf16", autocast]
    assert main(flags(tiny_llava, data, tmp_path / "out", *more)) == 0
    ((trainer, before),) = trainers
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype is torch.float32, name
            assert not torch.equal(parameter, before[name]), name
        elif "multi_modal_projector" not in name:
            assert parameter.dtype is torch.bfloat16, name
    assert load_mllm(tmp_path / "out", device="cpu").generate(["Hi"], max_new_tokens=2)


def test_the_projector_may_learn_at_its_own_rate(tiny_llava, data, tmp_path, trainers):
    """At a rate of next to nothing it stays where it is, with weight decay as without, while the rest moves."""
    more = ["--lora", "--projector-learning-rate", "1e-12", "--weight-decay", "0.1"]
    assert main(flags(tiny_llava, data, tmp_path / "out", *more)) == 0
    ((trainer, before),) = trainers
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad and "multi_modal_projector" in name:
            torch.testing.assert_close(parameter, before[name], rtol=0, atol=1e-7)
        elif parameter.requires_grad:
            assert not torch.allclose(parameter, before[name], atol=1e-6), name


def test_four_bit_base(data, tmp_path, trainers):
    """QLoRA: the language model's layers are packed; tower, projector and adapter are not."""
    pytest.importorskip("bitsandbytes")
    from tests.tiny import build_llava

    base = build_llava(tmp_path / "base", hidden_size=128, intermediate_size=256)  # its blocks hold 64 numbers
    assert main(flags(base, data, tmp_path / "out", "--lora", "--load-in-4bit")) == 0
    ((trainer, _),) = trainers
    types = {name: parameter.dtype for name, parameter in trainer.model.named_parameters()}
    assert any(kind is torch.uint8 for name, kind in types.items() if "language_model" in name)
    assert not any(kind is torch.uint8 for name, kind in types.items() if "vision_tower" in name)
    assert all(types[name] is torch.float32 for name in types if "lora_" in name or "modules_to_save" in name)
    assert load_mllm(tmp_path / "out", device="cpu").generate(["Hi"], max_new_tokens=2)
    assert load_mllm(tmp_path / "out", device="cpu", load_in_4bit=True).generate(["Hi"], max_new_tokens=2)


def test_a_base_with_odd_sampling_defaults_is_saved(tiny_llava, data, tmp_path):
    """Old files have a temperature and do not sample, which transformers refuses to write: after the training."""
    base = shutil.copytree(tiny_llava, tmp_path / "base")
    path = base / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": 0.2, "top_p": 0.9}))
    assert main(flags(base, data, tmp_path / "out")) == 0
    assert load_mllm(tmp_path / "out", device="cpu").generate(["Hi"], max_new_tokens=2)
