"""The first stage: cells learn their tokens."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import FocalNetConfig, FocalNetModel

from llava.model.embedded.reading_tower import ReadingTowerConfig
from llava.train.vision.reader import Reader, one_hot_spellings, total
from llava.train.vision.targets import BLANK, LETTERS, PLACES, Batch
from llava.train.vision_tower import use_fast_modulation
from tests.model.embedded.test_reading_tower import BACKBONE


@pytest.fixture
def reader():
    torch.manual_seed(0)
    config = ReadingTowerConfig(BACKBONE, lexicon_size=20, num_places=PLACES, num_letters=len(LETTERS) + 1)
    return Reader(config, torch.randint(0, len(LETTERS) + 1, (20, PLACES)).byte())


@pytest.fixture
def batch():
    torch.manual_seed(1)
    tokens = torch.full((6, 4), BLANK)
    for row in range(6):
        tokens[row, row % 4] = row
    return Batch(torch.randint(0, 256, (6, 3, 32, 32)).byte(), tokens, torch.randint(0, len(LETTERS) + 1, (6, 4, 4)))


def test_the_loss_is_finite_and_reaches_every_weight(reader, batch):
    losses = reader.losses(batch)
    assert set(losses) == {"present", "spelling", "word", "letter"}
    total(losses).backward()
    still = {
        name for name, weight in reader.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0
    }
    unused = {name for name in still if name.startswith("vision_tower.backbone.layernorm")}
    assert still == unused, "the norm behind the last stage is FocalNet's own and not used here"
    assert all(math.isfinite(loss.item()) for loss in losses.values())


def test_it_learns_a_batch_by_heart(reader, batch):
    optimiser = torch.optim.Adam(reader.parameters(), lr=3e-3)
    first = total(reader.losses(batch)).item()
    for _ in range(120):
        loss = total(reader.losses(batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < first / 3
    reader.eval()
    assert reader.read(batch.pixels).tolist() == batch.tokens.tolist()


def test_the_word_loss_is_that_of_the_look_up(reader):
    spelling = torch.randn(3, PLACES, len(LETTERS) + 1).log_softmax(-1)
    matrix = one_hot_spellings(reader.vision_tower.lexicon, len(LETTERS) + 1)
    assert matrix.sum(0).eq(PLACES).all()
    torch.testing.assert_close(spelling.flatten(1) @ matrix, reader.vision_tower.look_up(spelling))


def test_fast_modulation_is_the_same_function():
    torch.manual_seed(0)
    model = FocalNetModel(FocalNetConfig(**BACKBONE)).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        own = model(pixels).last_hidden_state
        with use_fast_modulation():
            fast = model(pixels).last_hidden_state
        again = model(pixels).last_hidden_state
    torch.testing.assert_close(fast, own, atol=1e-5, rtol=0)
    assert torch.equal(own, again)
