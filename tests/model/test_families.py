"""Vision-language models of other families load and answer through their own processor and chat template."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from PIL import Image

from llava.errors import InputError
from llava.model.answering import prompt_cache
from llava.model.answering.decoding import decode_rows
from llava.model.answering.sampling import GumbelNoise
from llava.model.loading import load_mllm
from tests.model.families import BUILDERS, NEED_TORCHVISION

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
PICTURES = [Image.linear_gradient("L").convert("RGB").resize(size) for size in ((50, 30), (30, 90))]
PROMPTS = ["Hi <image>", "How do I bake bread?"]


@pytest.fixture(autouse=True)
def cheap_passes(monkeypatch):
    """What prompts begin with is read apart however short it is."""
    monkeypatch.setattr(prompt_cache, "PASS_COST", 0)


def check_answers(folder, check_guarded) -> None:
    """Two rows with pictures of different shapes answer as each does alone, and so does a row without."""
    model = load_mllm(folder, device="cpu", dtype="float32")
    together = model.generate(PROMPTS, PICTURES, max_new_tokens=6)
    alone = [model.generate([p], [i], max_new_tokens=6)[0] for p, i in zip(PROMPTS, PICTURES, strict=True)]
    assert together == alone
    mixed = model.generate(PROMPTS, [None, PICTURES[1]], max_new_tokens=6)
    assert mixed[1] == together[1]
    check_rows_that_end_apart(model)
    check_guarded(model, PICTURES, PROMPTS)


def check_rows_that_end_apart(model) -> None:
    """Rows whose neighbours have ended go on as they do alone; sampled, for these weights say the same to all."""
    room = [2, 4, 5, 9, 12, 12]

    def decode(rows: list[int]) -> list[list[int]]:
        inputs = model.encode([f"{PROMPTS[1]} {row}" for row in rows], [PICTURES[row % 2] for row in rows])
        limits = torch.tensor([room[row] for row in rows])
        with torch.inference_mode():
            return decode_rows(model.model, inputs, limits, ends=[], processor=GumbelNoise(2.0, rows))

    together = decode(list(range(6)))
    assert together == [decode([row])[0] for row in range(6)]
    assert [len(tokens) for tokens in together] == room
    assert together[4] != together[5]


@pytest.mark.parametrize("family", sorted(set(BUILDERS) - {"instructblip"}))
def test_a_family_loads_answers_and_is_guarded(family, tmp_path, check_guarded):
    try:
        folder = BUILDERS[family](tmp_path / family)
    except ImportError as error:
        # In some versions of transformers Idefics3's processor for Pillow asks for torchvision too.
        if HAS_TORCHVISION or "Torchvision" not in str(error):
            raise
        pytest.skip(f"this transformers needs torchvision for {family}")
    check_answers(folder, check_guarded)


def test_a_model_for_pictures_only_says_so(tmp_path, check_guarded):
    model = load_mllm(BUILDERS["instructblip"](tmp_path / "model"), device="cpu")
    check_guarded(model, PICTURES, PROMPTS)
    assert len(model.generate(PROMPTS, PICTURES, max_new_tokens=6)) == 2
    with pytest.raises(InputError, match="answers about pictures only"):
        model.generate(PROMPTS, [None, PICTURES[1]], max_new_tokens=6)


@pytest.mark.parametrize("family", sorted(NEED_TORCHVISION))
def test_processors_with_a_video_part_need_torchvision(family, tmp_path, check_guarded):
    folder = NEED_TORCHVISION[family](tmp_path / family)
    if HAS_TORCHVISION:
        check_answers(folder, check_guarded)
        return
    with pytest.raises(InputError, match="pip install torchvision") as caught:
        load_mllm(folder, device="cpu")
    assert "\n" not in str(caught.value)
