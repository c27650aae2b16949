import numpy as np
import pytest
import torch

from llava.protector.classifier import load_sequence_classifier
from llava.protector.text import Window
from llava.train.embedded.states import StateStore, run_layers

WINDOWS = [Window([5, 6, 7, 8, 9], 2), Window([9, 6], 1), Window([7, 7, 8], 0), Window([11, 12, 13, 14], 3)]


@pytest.fixture(scope="module")
def backbone(tiny_lm):
    return load_sequence_classifier(str(tiny_lm)).eval().base_model


def test_layers_in_two_parts_are_the_network(backbone):
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 6, 0, 0, 0]])
    mask = torch.tensor([[1] * 5, [1, 1, 0, 0, 0]])
    layers = len(backbone.layers)
    with torch.inference_mode():
        whole = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        below = run_layers(backbone, backbone.embed_tokens(ids), 0, layers - 1)
        above = backbone.norm(run_layers(backbone, below, layers - 1, layers))
    torch.testing.assert_close(above[mask.bool()], whole[mask.bool()])


def lower(backbone):
    return lambda ids: run_layers(backbone, backbone.embed_tokens(ids), 0, 1)


@pytest.mark.parametrize("world", [1, 2])
def test_what_is_kept_is_what_was_computed(backbone, tmp_path, world):
    for rank in range(world):
        StateStore(tmp_path, WINDOWS, backbone.config.hidden_size).fill(lower(backbone), rank, world)
    store = StateStore(tmp_path, WINDOWS, backbone.config.hidden_size)
    batch = store.read([1, 0])
    assert batch.response_mask.tolist() == [[0, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    with torch.inference_mode():
        alone = lower(backbone)(torch.tensor([WINDOWS[0].ids]))[0]
    torch.testing.assert_close(batch.states[1], alone.float(), atol=2e-3, rtol=2e-3)
    assert not batch.states[0, 2:].any()


def test_it_goes_on_where_it_stopped_and_starts_anew_for_other_windows(backbone, tmp_path):
    store = StateStore(tmp_path, WINDOWS, backbone.config.hidden_size)
    store.fill(lower(backbone))
    kept = np.array(store.states)

    def refuse(ids):
        raise AssertionError("nothing is left to compute")

    again = StateStore(tmp_path, WINDOWS, backbone.config.hidden_size)
    again.fill(refuse)
    assert np.array_equal(np.array(again.states), kept)
    other = StateStore(tmp_path, WINDOWS[:2], backbone.config.hidden_size)
    with pytest.raises(AssertionError):
        other.fill(refuse)


def test_batches_hold_windows_of_similar_length(tmp_path):
    store = StateStore(tmp_path, WINDOWS, 4)
    batches = list(store.batches(range(4), tokens=8))
    assert batches == [[0], [3, 2], [1]]
    assert list(store.batches([])) == []
