"""The reading tower: cells in reading order, and a standard LLaVA around it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, LlavaConfig, LlavaForConditionalGeneration

from llava.model.embedded.reading_tower import (
    PRESENT,
    ReadingTower,
    ReadingTowerConfig,
    gather_cells,
    place_in_slots,
    present_cells,
)
from tests.tiny import text_config

BACKBONE = {
    "image_size": 32,
    "embed_dim": 8,
    "use_conv_embed": True,
    "depths": [0, 1, 1],
    "hidden_sizes": [8, 16, 32],
    "focal_levels": [2, 2, 3],
    "focal_windows": [3, 3, 3],
}


@pytest.fixture
def config():
    return ReadingTowerConfig(BACKBONE, num_slots=9, num_prefix_slots=2, lexicon_size=5, num_places=3, num_letters=4)


@pytest.fixture
def tower(config):
    torch.manual_seed(0)
    tower = ReadingTower(config).eval()
    tower.lexicon.copy_(torch.tensor([[1, 1, 0], [1, 2, 0], [1, 1, 2], [0, 3, 3], [1, 3, 0]]))
    return tower


def test_the_config_tells_what_others_ask_for(config, tmp_path):
    assert (config.cell_size, config.hidden_size, config.image_size, config.patch_size) == (32, 14, 32, 10)
    assert (config.image_size // config.patch_size) ** 2 == config.num_slots
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, ReadingTowerConfig)
    assert again.to_diff_dict() == config.to_diff_dict()


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(1, 8))
def test_present_cells_come_first_in_their_order(present, room):
    cells, taken = gather_cells(torch.arange(6.0)[None, :, None], torch.tensor([present]), room)
    shown = [float(number) for number, there in enumerate(present) if there][:room]
    assert cells.shape == (1, min(room, 6), 1)
    assert taken[0].tolist() == [number < len(shown) for number in range(min(room, 6))]
    assert cells[0, taken[0], 0].tolist() == shown


PLANES = st.integers(1, 4).flatmap(
    lambda side: st.tuples(
        *(
            st.lists(values, min_size=side * side, max_size=side * side)
            for values in (st.floats(0, 1), st.integers(0, 2))
        )
    )
)


@given(PLANES)
def test_neighbours_do_not_say_the_same_token(planes):
    side = int(len(planes[0]) ** 0.5)
    presence, tokens = (torch.tensor(plane).view(1, side, side) for plane in planes)
    present = present_cells(presence, tokens, torch.zeros_like(tokens, dtype=torch.bool))[0]
    for y, x in present.nonzero().tolist():
        around = torch.zeros_like(present)
        around[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
        around[y, x] = False
        assert not (present & around & (tokens[0] == tokens[0, y, x])).any()


@given(st.lists(st.floats(0, 1), min_size=9, max_size=9))
def test_different_tokens_are_present_by_their_own_probability(values):
    presence = torch.tensor(values).view(1, 3, 3)
    present = present_cells(presence, torch.arange(9).view(1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool))
    assert torch.equal(present, presence > PRESENT)


def test_a_line_between_two_rows_is_said_once_and_in_one_row():
    presence = torch.tensor([[[0.0, 0.0, 0.0], [0.6, 0.5, 0.6], [0.45, 0.55, 0.4]]])
    tokens = torch.tensor([[[0, 1, 2], [3, 4, 5], [3, 4, 5]]])
    present = present_cells(presence, tokens, torch.zeros_like(tokens, dtype=torch.bool))
    assert present[0].tolist() == [[False] * 3, [True] * 3, [False] * 3]


def test_dots_below_one_another_stay():
    presence, tokens = torch.full((1, 3, 3), 0.0), torch.zeros(1, 3, 3, dtype=torch.long)
    presence[0, :, 0] = 0.9
    for repeatable in (True, False):
        present = present_cells(presence, tokens, torch.full((1, 3, 3), repeatable))
        assert present.sum() == (3 if repeatable else 1)


def test_words_and_slots_share_the_positions():
    words = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]])
    slots = place_in_slots(words, torch.tensor([[True, False]]), num_slots=4)
    assert slots.tolist() == [
        [
            pytest.approx([0, 0, 1, 0, 0, 0]),
            pytest.approx([0, 0, 0, 1, 0, 0]),
            pytest.approx([0.9, 0.1, 0, 0, 0, 0]),
            pytest.approx([0, 0, 0, 0, 0, 1]),
        ]
    ]


def test_a_spelling_finds_its_token_in_spite_of_a_slip(tower):
    sure = torch.full((1, 3, 4), -5.0)
    for place, letter in enumerate((1, 1, 2)):
        sure[0, place, letter] = 0.0
    assert tower.look_up(sure).argmax(-1).item() == 2
    assert tower.look_up(sure).tolist() == [[-5.0, -10.0, 0.0, -15.0, -10.0]]
    slip = sure.clone()
    slip[0, 2] = torch.tensor([-1.5, -5.0, -1.6, -0.6])
    assert tower.look_up(slip).argmax(-1).item() == 0, "no token is spelt 1 1 3; 1 1 0 is likelier than 1 1 2"


def test_positions_are_weights(tower):
    with torch.no_grad():
        tower.presence.weight.normal_()
        slots = tower(torch.randn(4, 3, 32, 32)).last_hidden_state
    assert slots.shape == (4, 9, 14)
    torch.testing.assert_close(slots.sum(-1), torch.ones(4, 9))
    assert slots[:, :2, 5:7].diagonal(dim1=1, dim2=2).eq(1).all(), "the prefix is the same for every picture"


def test_a_picture_of_shapes_has_slots_of_its_own(config, tower):
    """Token 1 is a colour, token 4 a form; the second picture says both, the first the other way round and a word."""
    two = ReadingTowerConfig(**{**config.to_diff_dict(), "colour_tokens": [1], "form_tokens": [4]})
    assert (two.num_slot_sets, two.hidden_size) == (2, 23)
    seeing = ReadingTower(two).eval()
    seeing.load_state_dict(tower.state_dict())
    said = torch.full((2, 4, 5), -20.0)
    for picture, order in enumerate(([4, 1, 0], [1, 4, 0])):
        for cell, token in enumerate(order):
            said[picture, cell, token] = 0.0
    present = torch.tensor([[True, True, True, False]] * 2)
    seeing.cells = lambda pixels: pixels
    seeing.say = lambda cells: (said, present)
    with torch.no_grad():
        slots = seeing(torch.zeros(2, 3, 32, 32)).last_hidden_state
    assert slots.shape == (2, 9, 23)
    first, second = slots[..., 5:14], slots[..., 14:]
    assert first[0, :2].diagonal().eq(1).all()
    assert second[1, :2].diagonal().eq(1).all()
    assert not second[0].any()
    assert not first[1].any()
    torch.testing.assert_close(slots.sum(-1), torch.ones(2, 9))
    torch.testing.assert_close(slots[:, 5, :5].argmax(-1), torch.tensor([4, 1]))


def test_rows_of_a_batch_do_not_touch_one_another(tower):
    with torch.no_grad():
        tower.presence.weight.normal_()
        pixels = torch.randn(3, 3, 32, 32)
        together = tower(pixels).last_hidden_state
        alone = torch.cat([tower(row[None]).last_hidden_state for row in pixels])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_llava_with_it_is_a_standard_one(config, tower, tmp_path):
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=config,
            text_config=text_config(64),
            image_token_id=5,
            image_seq_length=9,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            projector_hidden_act="linear",
            tie_word_embeddings=False,
        )
    ).eval()
    model.model.vision_tower.load_state_dict(tower.state_dict())
    inputs = {"input_ids": torch.tensor([[1, *[5] * 9, 7]]), "pixel_values": torch.randn(1, 3, 32, 32)}
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(again) is LlavaForConditionalGeneration
    assert type(again.model.vision_tower) is ReadingTower
    assert torch.equal(again.model.vision_tower.lexicon, tower.lexicon)
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)
        half = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert half(**inputs).logits.dtype == torch.bfloat16
        assert torch.equal(half.model.vision_tower.lexicon, tower.lexicon)


def test_transformers_knows_the_type(config):
    assert type(AutoModel.from_config(config)) is ReadingTower
    assert type(AutoConfig.for_model("reading_tower")) is ReadingTowerConfig
