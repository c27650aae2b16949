"""Vision-language models of other families load and answer through their own processor and chat template."""

from __future__ import annotations

import importlib.util

import pytest
from PIL import Image

from llava.errors import InputError
from llava.model.loading import load_mllm
from tests.model.families import BUILDERS, NEED_TORCHVISION

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
PICTURES = [Image.linear_gradient("L").convert("RGB").resize(size) for size in ((50, 30), (30, 90))]
PROMPTS = ["Hi <image>", "How do I bake bread?"]


def check_answers(folder, check_guarded) -> None:
    """Two rows with pictures of different shapes answer as each does alone, and so does a row without."""
    model = load_mllm(folder, device="cpu", dtype="float32")
    together = model.generate(PROMPTS, PICTURES, max_new_tokens=6)
    alone = [model.generate([p], [i], max_new_tokens=6)[0] for p, i in zip(PROMPTS, PICTURES, strict=True)]
    assert together == alone
    mixed = model.generate(PROMPTS, [None, PICTURES[1]], max_new_tokens=6)
    assert mixed[1] == together[1]
    check_guarded(model, PICTURES, PROMPTS)


@pytest.mark.parametrize("family", sorted(set(BUILDERS) - {"instructblip"}))
def test_a_family_loads_answers_and_is_guarded(family, tmp_path, check_guarded):
    check_answers(BUILDERS[family](tmp_path / family), check_guarded)


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
