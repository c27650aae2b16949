import importlib.util
import json
import math

import pytest
import torch

from llava.protector.detoxifier import Detoxifier
from llava.train import detoxifier
from llava.train.detoxifier import DetoxifierTrainer, main, project_only
from llava.train.detoxifier_data import DetoxifierCollator, encode_rewrites
from tests.train.rows import write_rewrites

FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "metrics.json",
    "protector_config.json",
    "train_config.yaml",
}
if importlib.util.find_spec("tensorboard"):
    FILES |= {"runs"}


def flags(tiny_lm, tmp_path, *more):
    return [
        *("--base", str(tiny_lm), "--train-data", str(write_rewrites(tmp_path / "rewrites.jsonl"))),
        *("--output-dir", str(tmp_path / "out"), "--max-length", "192", "--max-target-tokens", "40"),
        *("--learning-rate", "1e-2", "--num-train-epochs", "2", "--disable-tqdm", "true", "--save-strategy", "no"),
        *more,
    ]


def test_smoke(tiny_lm, tmp_path, monkeypatch):
    built = []
    original = detoxifier.build_trainer

    def build(*args, **kwargs):
        trainer = original(*args, **kwargs)
        built.append((trainer, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}))
        return trainer

    monkeypatch.setattr(detoxifier, "build_trainer", build)
    assert main(flags(tiny_lm, tmp_path, "--logging-steps", "1")) == 0
    ((trainer, before),) = built
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) is (not parameter.requires_grad), name
        assert parameter.requires_grad is ("lora_" in name)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["token_loss"]))


def test_the_trained_detoxifier_writes_its_targets_and_stops(tiny_lm, tmp_path):
    """Overfit on one target: the code of inference writes it and ends at eos."""
    path = tmp_path / "one.jsonl"
    row = {"prompt": "q", "harmful_response": "thorn", "harmless_response": "water and bread"}
    path.write_text("".join(json.dumps({**row, "prompt": f"q{i}"}) + "\n" for i in range(8)))
    more = ["--train-data", str(path), "--num-train-epochs", "80", "--lora-r", "8", "--held-out-fraction", "0"]
    assert main(flags(tiny_lm, tmp_path, *more)) == 0
    assert Detoxifier.from_pretrained(tmp_path / "out").rewrite(["q1"], ["thorn"], max_new_tokens=40) == [
        "water and bread"
    ]


def test_the_head_works_at_chosen_positions_only():
    head = torch.nn.Linear(2, 3)
    hidden = torch.randn(2, 4, 2)
    positions = torch.tensor([[True, False, False, True], [False, True, False, False]])
    with project_only(head, positions):
        assert torch.equal(head(hidden), torch.nn.functional.linear(hidden[positions], head.weight, head.bias))
    assert head(hidden).shape == (2, 4, 3)


def make_batch(tiny_lm, tmp_path):
    from transformers import AutoTokenizer

    from llava.data.pairs import load_detoxifier_rows
    from llava.data.pairs_sources import parse_mixture
    from llava.protector.config import ProtectorConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    rows = load_detoxifier_rows(parse_mixture(str(write_rewrites(tmp_path / "rows.jsonl", 4))))
    encoded = encode_rewrites(tokenizer, ProtectorConfig(kind="detoxifier"), rows, 40)
    return DetoxifierCollator(tokenizer.pad_token_id)(encoded)


def test_the_loss_is_that_of_the_model_itself(tiny_lm, tmp_path):
    """transformers' own loss on all positions, with the prompt's labels ignored, is the reference."""
    from transformers import AutoModelForCausalLM

    from llava.train.arguments import RunArguments

    model = AutoModelForCausalLM.from_pretrained(tiny_lm).eval()
    batch = make_batch(tiny_lm, tmp_path)
    trainer = DetoxifierTrainer(model=model, args=RunArguments(output_dir=str(tmp_path / "o")), sampling={})
    loss = trainer.compute_loss(model, batch)
    assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    # As a part of a step with three times as many target tokens it counts a third.
    tokens = int((batch["labels"] != -100).sum())
    assert trainer.compute_loss(model, batch, num_items_in_batch=3 * tokens).item() == pytest.approx(loss.item() / 3)


def test_prediction_step_sums_by_row(tiny_lm, tmp_path):
    from transformers import AutoModelForCausalLM

    from llava.train.arguments import RunArguments

    model = AutoModelForCausalLM.from_pretrained(tiny_lm).eval()
    batch = make_batch(tiny_lm, tmp_path)
    trainer = DetoxifierTrainer(model=model, args=RunArguments(output_dir=str(tmp_path / "o")), sampling={})
    loss, sums, counts = trainer.prediction_step(model, batch, prediction_loss_only=False)
    assert counts.tolist() == (batch["labels"] != -100).sum(1).tolist()
    assert (sums[:, 0].sum() / counts.sum()).item() == pytest.approx(loss.item(), rel=1e-5)
    with torch.no_grad():
        single = model(**{key: value[2:3] for key, value in batch.items()}).loss.item()
    assert (sums[2, 0] / counts[2]).item() == pytest.approx(single, rel=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-target-tokens", "200"], "--max-target-tokens is 200"),
        (["--text-form", "answer"], "text_form"),
        (["--eval-data", "absent.jsonl"], "absent.jsonl does not exist"),
    ],
)
def test_bad_input_is_one_line(tiny_lm, tmp_path, capsys, more, message):
    assert main(flags(tiny_lm, tmp_path, *more)) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(tiny_lm, tmp_path, capsys):
    assert main(flags(tiny_lm, tmp_path, "--dry-run")) == 0
    assert "target tokens" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
