"""A LLaVA's processor counts as many positions as the tower gives features, or the model does not load."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from llava.errors import InputError
from llava.model.loading import load_mllm, load_processor
from tests.model.damage import edit_json

COUNTING = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")


@pytest.fixture
def copy(tiny_llava, tmp_path):
    return shutil.copytree(tiny_llava, tmp_path / "copy")


@pytest.mark.parametrize("absent", [COUNTING, COUNTING[2:], COUNTING[:1], COUNTING[1:]], ids=str)
def test_what_old_files_lack_is_filled_in_from_the_tower(copy, absent):
    edit_json(copy / "processor_config.json", **dict.fromkeys(absent, ...))
    model = load_mllm(copy, device="cpu")
    processor = model.processor
    assert [getattr(processor, name) for name in COUNTING] == [16, "default", 1]
    assert model.generate(["Hi"], [Image.new("RGB", (30, 20))], max_new_tokens=2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"patch_size": 8}, "counts 16 positions for a picture, its vision tower gives 4"),
        ({"vision_feature_select_strategy": "full"}, "counts 5 positions for a picture, its vision tower gives 4"),
        ({"patch_size": "16"}, "cannot be loaded"),
        ({"patch_size": 0}, "cannot be loaded"),
    ],
)
def test_a_processor_that_counts_otherwise_is_refused(copy, changes, named):
    edit_json(copy / "processor_config.json", **changes)
    with pytest.raises(InputError, match=named):
        load_processor(str(copy), "tiny")


def test_pictures_of_another_size_are_refused(copy):
    path = copy / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"]["crop_size"] = {"height": 64, "width": 64}
    path.write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"makes pictures of shape \[1, 3, 64, 64\], its vision tower takes \[1, 3, 32, 32\]"
    ):
        load_processor(str(copy), "tiny")


@pytest.mark.parametrize(
    ("field", "size"),
    [("crop_size", {"height": 32, "width": 60_000}), ("size", {"shortest_edge": 10**30}), ("size", 4097)],
)
def test_sizes_that_would_fill_the_memory_are_refused(copy, field, size):
    path = copy / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"][field] = size
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"has {field} with \w+ .+, over 4096 pixels"):
        load_processor(str(copy), "tiny")


@pytest.mark.parametrize("changes", [{"image_std": [0.0, 0.0, 0.0]}, {"rescale_factor": 1e308}])
def test_pictures_whose_numbers_are_not_finite_are_refused(copy, changes):
    path = copy / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"].update(changes)
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="makes pictures of numbers that are not finite; mend image_mean, image_std"):
        load_processor(str(copy), "tiny")


@pytest.mark.parametrize("value", [None, 0, "16"])
def test_a_tower_whose_sizes_are_no_numbers_is_refused(copy, value):
    path = copy / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["patch_size"] = value
    path.write_text(json.dumps(config))
    with pytest.raises(InputError) as caught:
        load_processor(str(copy), "tiny")
    assert "\n" not in str(caught.value)


def test_a_template_in_a_file_of_its_own_is_read(copy):
    """Released files have `chat_template.json`; later ones have the template as it is, or in the processor's config."""
    (copy / "chat_template.jinja").unlink()
    edit_json(copy / "processor_config.json", chat_template=...)
    edit_json(copy / "tokenizer_config.json", chat_template=...)
    assert load_processor(str(copy), "tiny").chat_template is None
    template = "{% for m in messages %}{% for p in m['content'] %}{% if p['type'] == 'image' %}<image> {% else %}"
    template += "ASKED {{ p['text'] }}{% endif %}{% endfor %}{% endfor %} SAID"
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    model = load_mllm(copy, device="cpu")
    for pictures, start in (([Image.new("RGB", (30, 20))], "<image>" * 4 + " "), (None, "")):
        assert model.tokenizer.decode(model.encode(["Hi"], pictures)["input_ids"][0]) == f"{start}ASKED Hi SAID"
