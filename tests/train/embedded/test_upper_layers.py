from itertools import pairwise

import torch

from llava.protector.config import ProtectorConfig
from llava.protector.detector import HarmDetector
from llava.protector.text import Window
from llava.train.embedded.states import StateStore, run_layers
from llava.train.embedded.upper_layers import (
    Example,
    Settings,
    UpperDetector,
    form_batches,
    is_pair,
    prefix_ends,
    rate_at,
    train_upper,
)
from tests.tiny_adapters import build_detector_adapter


def make_store(folder, detector):
    """Harmful windows hold token 9, harmless ones do not."""
    windows = [Window([5, 6, 7 + (i % 2) * 2, 8, 10 + i % 7, 11][: 4 + i % 3], 1) for i in range(24)]
    backbone = detector.network.backbone.eval()
    store = StateStore(folder, windows, backbone.config.hidden_size)
    store.fill(lambda ids: run_layers(backbone, backbone.embed_tokens(ids), 0, detector.settings.first_layer))
    return store


def test_only_the_upper_layers_and_the_head_learn(tiny_lm, tmp_path):
    adapter = build_detector_adapter(tmp_path / "first", tiny_lm, pooling="mean_response")
    settings = Settings(first_layer=1, epochs=12, learning_rate=1e-2, head_rate=1e-2, batch_tokens=32, stretches=(3,))
    config = ProtectorConfig.load(adapter, "detector")
    detector = UpperDetector(str(tiny_lm), adapter, config, settings)
    store = make_store(tmp_path / "states", detector)
    units = [(Example(i, bool(i % 2), 1.0),) for i in range(20)]
    units.append((Example(20, False, 0.0), Example(21, True, 0.0)))
    before = {name: weight.detach().clone() for name, weight in detector.model.named_parameters()}
    labels = torch.tensor([i % 2 == 1 for i in range(20)])

    def harm():
        detector.model.eval()
        batch = store.read(range(20))
        with torch.inference_mode():
            logits = detector.token_logits(batch.states)
        return (logits * batch.response_mask).sum(1) / batch.response_mask.sum(1)

    gap = harm()[labels].mean() - harm()[~labels].mean()
    train_upper(detector, store, units, tmp_path / "out")
    assert harm()[labels].mean() - harm()[~labels].mean() > gap + 1
    for name, weight in detector.model.named_parameters():
        moved = not torch.equal(weight, before[name])
        upper = "lora" in name and ".layers.0." not in name
        assert moved == (upper or ("score" in name and "modules_to_save" in name)), name
    config.save(tmp_path / "out" / "epoch-12")
    assert HarmDetector.from_pretrained(tmp_path / "out" / "epoch-12").score(["So it is."])[0] > 0


def test_prefixes_of_harmful_responses_go_past_their_half():
    draw = torch.Generator().manual_seed(0)
    counts, labels = torch.tensor([1, 9, 9, 10, 1]), torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    ends = torch.stack([prefix_ends(counts, labels, draw) for _ in range(500)])
    assert ends.min(0).values.tolist() == [1, 5, 1, 5, 1]
    assert ends.max(0).values.tolist() == [1, 9, 9, 10, 1]


def test_every_unit_is_in_an_epoch_once_and_pairs_stay_together(tiny_lm, tmp_path):
    adapter = build_detector_adapter(tmp_path / "first", tiny_lm, pooling="mean_response")
    config = ProtectorConfig.load(adapter, "detector")
    store = make_store(tmp_path / "s", UpperDetector(str(tiny_lm), adapter, config, Settings(first_layer=1)))
    units = [(Example(i, False, 1.0),) for i in range(20)] + [(Example(20, False, 0.0), Example(21, True, 0.0))]
    batches = list(form_batches(store, units, 18, seed=3))
    assert sorted(unit[0].number for batch in batches for unit in batch) == list(range(21))
    for batch in batches:
        rows = [row for unit in batch for row in unit]
        assert len(rows) * max(store.lengths[row.number] for row in rows) <= 18
        assert [is_pair(batch, one, other) for one, other in pairwise(rows)] == [
            (one.number, other.number) == (20, 21) for one, other in pairwise(rows)
        ]
    assert batches != list(form_batches(store, units, 18, seed=4))


def test_the_rate_rises_and_falls():
    rates = [rate_at(step, 300) for step in range(300)]
    assert rates[0] < 0.2
    assert max(rates) == rate_at(10, 300) == 1.0
    assert 0.1 <= rates[-1] < 0.11
    assert rates[10:] == sorted(rates[10:], reverse=True)
