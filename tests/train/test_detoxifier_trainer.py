import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from llava.data.training.pairs import load_detoxifier_rows
from llava.data.training.sources import parse_mixture
from llava.protector.config import ProtectorConfig
from llava.train.arguments import DataArguments, RunArguments
from llava.train.detoxifier_trainer import build_sft_config, build_trainer
from llava.train.rows.detoxifier import build_dataset, encode_rewrites
from llava.train.token_loss import measure_tokens
from tests.train.samples import write_rewrites


@pytest.fixture
def trainer(tiny_lm, tmp_path):
    """A trainer on a tiny model without dropout; six rows, the first two of them held out as well."""
    path = write_rewrites(tmp_path / "rows.jsonl", 6)
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    rows = load_detoxifier_rows(parse_mixture(str(path)))
    encoded = encode_rewrites(tokenizer, ProtectorConfig(kind="detoxifier"), rows, 40)
    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    run = RunArguments(output_dir=str(tmp_path / "out"), bf16=False)
    return build_trainer(model, tokenizer, DataArguments(train_data=str(path)), run, encoded, encoded[:2])


def make_batch(trainer):
    """Return four rows, where the model is."""
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    return {key: value.to(trainer.model.device) for key, value in batch.items()}


def count_targets(batch):
    return int((batch["labels"][:, 1:] != -100).sum())


def test_trl_reads_our_rows_as_prompt_and_completion(trainer, tiny_lm):
    """What SFTTrainer makes of tokenised rows is what it makes of the same texts."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    example = trainer.train_dataset[0]
    labelled = [token for token in example["labels"] if token != -100]
    assert example["labels"][-len(labelled) :] == labelled == example["input_ids"][-len(labelled) :]
    assert tokenizer.decode(labelled).endswith("bloom<|im_end|>")
    assert tokenizer.decode(example["input_ids"][: -len(labelled)]).endswith("Corrected response: ")
    assert trainer.completion_only_loss is True


@pytest.mark.parametrize("parts", [None, 1, 3])
def test_the_loss_is_that_of_sfttrainer_itself(trainer, tiny_lm, tmp_path, parts):
    """Alone, and as a part of a step with as many or three times as many target tokens."""
    plain = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_lm),
        args=SFTConfig(output_dir=str(tmp_path / "plain"), use_cpu=True, bf16=False, report_to="none", max_length=None),
        train_dataset=trainer.train_dataset,
        processing_class=AutoTokenizer.from_pretrained(tiny_lm),
    )
    trainer.model.cpu()
    batch = make_batch(trainer)
    items = None if parts is None else torch.tensor(parts * count_targets(batch))
    trainer.model.eval()
    plain.model.eval()
    expected = plain.compute_loss(plain.model, dict(batch), num_items_in_batch=items).item()
    assert trainer.compute_loss(trainer.model, batch, num_items_in_batch=items).item() == pytest.approx(
        expected, abs=1e-5
    )


def test_the_loss_computed_by_hand(trainer):
    """Mean over the target tokens of −log softmax(logits)[next token], position by position."""
    batch = make_batch(trainer)
    model = trainer.model.eval()
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.cpu()
    terms = [
        -math.log(math.exp(logits[row, t, label]) / logits[row, t].double().exp().sum().item())
        for row, labels in enumerate(batch["labels"].tolist())
        for t, label in enumerate(labels[1:])
        if label != -100
    ]
    assert len(terms) == count_targets(batch)
    assert trainer.compute_loss(model, batch).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_prediction_step_sums_by_row(trainer):
    batch = make_batch(trainer)
    model = trainer.model.eval()
    loss, sums, counts = trainer.prediction_step(model, batch, prediction_loss_only=False)
    assert counts.tolist() == (batch["labels"] != -100).sum(1).tolist()
    assert (sums[:, 0].sum() / counts.sum()).item() == pytest.approx(loss.item(), rel=1e-5)
    with torch.no_grad():
        single = model(**{key: value[2:3] for key, value in batch.items()}).loss.item()
    assert (sums[2, 0] / counts[2]).item() == pytest.approx(single, rel=1e-5)


def test_an_evaluation_is_per_token(trainer):
    """Rows with few target tokens count less; a mean of batch means would not notice."""
    prediction = trainer.predict(trainer.eval_dataset)
    model = trainer.model.eval()
    losses, tokens = [], []
    for row in trainer.eval_dataset:
        with torch.no_grad():
            ids, labels = (torch.tensor([row[key]], device=model.device) for key in ("input_ids", "labels"))
            losses.append(model(ids, labels=labels).loss.item())
        tokens.append(sum(label != -100 for label in row["labels"]))
    expected = sum(loss * n for loss, n in zip(losses, tokens, strict=True)) / sum(tokens)
    assert measure_tokens(prediction)["token_loss"] == pytest.approx(expected, rel=1e-5)


def test_our_flags_reach_trl(tmp_path):
    """Where both have a flag ours holds; those that would cut or pack rows are off."""
    # Some versions of transformers have None for no checkpointing.
    flags = {"learning_rate": 3e-3, "warmup_steps": 7, "resume": True, "gradient_checkpointing": False}
    run = RunArguments(output_dir=str(tmp_path), bf16=False, **flags)
    config = build_sft_config(run)
    assert (config.learning_rate, config.warmup_steps, config.bf16) == (3e-3, 7, False)
    assert config.gradient_checkpointing is False  # TRL's default is True
    assert (config.completion_only_loss, config.max_length, config.packing) == (True, None, False)
    assert config.n_gpu == run.n_gpu
    different = {name for name, value in run.to_dict().items() if name != "resume" and config.to_dict()[name] != value}
    assert different == set()


def test_no_card_is_written_where_ours_will_stand(trainer, tmp_path):
    trainer.create_model_card(model_name="x")
    assert not (tmp_path / "out" / "README.md").exists()


def test_rows_stay_in_the_order_that_the_sampler_counts_on(trainer):
    lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
    assert lengths == trainer.sampling["lengths"]
    assert build_dataset([]).num_rows == 0
