import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer

from llava.train.arguments import RunArguments
from llava.train.token_loss import TokenLossMixin, measure_tokens, project_only


class Plain(TokenLossMixin, Trainer):
    """The mixin on the Trainer itself."""


@pytest.fixture
def model(tiny_lm):
    return AutoModelForCausalLM.from_pretrained(tiny_lm).eval()


@pytest.fixture
def trainer(model, tmp_path):
    return Plain(model=model, args=RunArguments(output_dir=str(tmp_path / "o"), report_to="none", bf16=False))


@pytest.fixture
def batch(trainer):
    """Where the trainer has put its model."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (3, 9), generator=generator)
    labels = ids.clone()
    labels[:, :4] = -100
    labels[2, 6:] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {key: value.to(trainer.model.device) for key, value in batch.items()}


def test_the_head_works_at_chosen_positions_only():
    head = torch.nn.Linear(2, 3)
    hidden = torch.randn(2, 4, 2)
    positions = torch.tensor([[True, False, False, True], [False, True, False, False]])
    with project_only(head, positions):
        assert torch.equal(head(hidden), torch.nn.functional.linear(hidden[positions], head.weight, head.bias))
    assert head(hidden).shape == (2, 4, 3)


def test_the_loss_is_that_of_the_model_itself(model, trainer, batch):
    loss = trainer.compute_loss(model, batch)
    assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    # As a part of a step with three times as many target tokens it counts a third.
    tokens = int((batch["labels"] != -100).sum())
    assert trainer.compute_loss(model, batch, num_items_in_batch=3 * tokens).item() == pytest.approx(loss.item() / 3)


def test_evaluation_sums_by_row(model, trainer, batch):
    loss, sums, counts = trainer.prediction_step(model, batch, prediction_loss_only=False)
    assert counts.tolist() == [5, 5, 2]
    assert (sums[:, 0].sum() / counts.sum()).item() == pytest.approx(loss.item(), rel=1e-5)
    with torch.no_grad():
        single = model(**{key: value[2:3] for key, value in batch.items()}).loss.item()
    assert (sums[2, 0] / counts[2]).item() == pytest.approx(single, rel=1e-5)
    assert trainer.prediction_step(model, batch, prediction_loss_only=True)[1:] == (None, None)


def test_figures_are_per_token_over_all_rows():
    """Four tokens with losses 1, 1, 1, 5 and three of them right: a mean of 2, not a mean of the rows' means."""
    gathered = SimpleNamespace(predictions=np.array([[3.0, 3], [5.0, 0]]), label_ids=np.array([3, 1]))
    assert measure_tokens(gathered) == {"token_loss": 2.0, "perplexity": math.exp(2), "token_accuracy": 0.75}
