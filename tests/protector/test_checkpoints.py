import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import InputError
from llava.protector.checkpoints import check_checkpoint, load_checkpoint_tokenizer, open_checkpoint
from llava.protector.detector import HarmDetector
from llava.protector.detoxifier import Detoxifier
from tests.model.damage import edit_json
from tests.released_adapters import RELEASED_BASE, to_released_form
from tests.tiny import build_causal_lm
from tests.tiny_adapters import build_detector_adapter, build_detoxifier_adapter


def test_adapter_names_its_base(tiny_detector, tiny_lm):
    checkpoint = open_checkpoint("detector", str(tiny_detector))
    assert (checkpoint.adapter, checkpoint.model) == (tiny_detector, str(tiny_lm))
    assert load_checkpoint_tokenizer(checkpoint).pad_token is not None


def test_merged_model_is_its_own_base(tiny_classifier):
    checkpoint = open_checkpoint("detector", str(tiny_classifier))
    assert (checkpoint.adapter, checkpoint.model) == (None, str(tiny_classifier))
    with pytest.raises(InputError, match="takes no base"):
        open_checkpoint("detector", str(tiny_classifier), base="x/y")


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_checkpoint("detector", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        open_checkpoint("detector", str(tmp_path))


def test_adapter_of_the_other_kind(tiny_detoxifier, tiny_detector):
    with pytest.raises(InputError, match="not a detector"):
        open_checkpoint("detector", str(tiny_detoxifier))
    with pytest.raises(InputError, match="not a detoxifier"):
        open_checkpoint("detoxifier", str(tiny_detector))


def test_task_type_is_checked_without_our_config(tiny_detoxifier, tmp_path):
    folder = shutil.copytree(tiny_detoxifier, tmp_path / "adapter")
    (folder / "protector_config.json").unlink()
    with pytest.raises(InputError, match="CAUSAL_LM"):
        open_checkpoint("detector", str(folder))


def test_adapter_whose_base_is_gone(tiny_detector, tmp_path):
    folder = shutil.copytree(tiny_detector, tmp_path / "adapter")
    for name, key in (("protector_config.json", "base_model"), ("adapter_config.json", "base_model_name_or_path")):
        values = json.loads((folder / name).read_text())
        values[key] = str(tmp_path / "gone")
        (folder / name).write_text(json.dumps(values))
    with pytest.raises(InputError, match="gone"):
        open_checkpoint("detector", str(folder))


def test_sound_checkpoints_pass_the_check(tiny_detector, tiny_detoxifier, tiny_classifier, tiny_lm):
    for path in (tiny_detector, tiny_classifier, "embedded"):
        check_checkpoint("detector", str(path))
    for path in (tiny_detoxifier, tiny_lm, "embedded"):
        check_checkpoint("detoxifier", str(path))


def test_the_check_finds_an_adapter_of_another_base(tiny_detector, tiny_detoxifier, tmp_path):
    wide = build_causal_lm(tmp_path / "wide", hidden_size=48, intermediate_size=96)
    for kind, path in (("detector", tiny_detector), ("detoxifier", tiny_detoxifier)):
        with pytest.raises(InputError, match="does not fit base"):
            check_checkpoint(kind, str(path), base=str(wide))


def test_the_check_finds_damaged_weights_and_foreign_heads(tiny_detector, tiny_lm, tmp_path):
    folder = shutil.copytree(tiny_detector, tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        check_checkpoint("detector", str(folder))
    with pytest.raises(InputError, match="labels"):
        check_checkpoint("detector", str(tiny_lm))


@pytest.mark.parametrize("modules_to_save", [None, ["score"], ["classifier", "score"]], ids=str)
def test_a_released_detector_gives_the_scores_it_was_saved_with(tiny_lm, tmp_path, modules_to_save):
    """Whatever its config says of the head, the saved one is used, and label 1 is safe."""
    adapter = build_detector_adapter(tmp_path / "adapter", tiny_lm, positive_label="safe", max_length=512)
    texts = (["Mix flour and water.", "No.", "word " * 300], ["How?", "Why?", "What?"])
    before = HarmDetector.from_pretrained(adapter, dtype="float32").score(*texts)
    to_released_form(adapter, "SEQ_CLS", modules_to_save)
    assert open_checkpoint("detector", str(adapter), base=str(tiny_lm)).config.positive_label == "safe"
    check_checkpoint("detector", str(adapter), base=str(tiny_lm))
    detector = HarmDetector.from_pretrained(adapter, base=str(tiny_lm), dtype="float32")
    scores = detector.score(*texts)
    assert scores == pytest.approx(before, abs=1e-6)
    config = replace(detector.config, positive_label="harmful")
    p_positive = HarmDetector(detector.classifier, detector.tokenizer, config).score(*(part[:2] for part in texts))
    assert scores[:2] == pytest.approx([1 - p for p in p_positive], abs=1e-6)
    assert max(scores) - min(scores) > 1e-3


def test_a_released_detoxifier_writes_what_it_was_saved_with(tiny_lm, tmp_path):
    adapter = build_detoxifier_adapter(tmp_path / "adapter", tiny_lm)
    texts = (["How?", "Why?"], ["Mix flour.", "Because."])
    before = Detoxifier.from_pretrained(adapter, dtype="float32").rewrite(*texts, max_new_tokens=12)
    assert before != Detoxifier.from_pretrained(tiny_lm, dtype="float32").rewrite(*texts, max_new_tokens=12)
    to_released_form(adapter, "CAUSAL_LM", None)
    check_checkpoint("detoxifier", str(adapter), base=str(tiny_lm))
    again = Detoxifier.from_pretrained(adapter, base=str(tiny_lm), dtype="float32")
    assert again.rewrite(*texts, max_new_tokens=12) == before


def test_a_released_adapter_names_the_base_it_lacks(tiny_lm, tmp_path):
    adapter = to_released_form(build_detoxifier_adapter(tmp_path / "adapter", tiny_lm), "CAUSAL_LM", None)
    with pytest.raises(InputError, match=RELEASED_BASE):
        open_checkpoint("detoxifier", str(adapter))
    with pytest.raises(InputError, match="CAUSAL_LM"):
        open_checkpoint("detector", str(adapter), base=str(tiny_lm))


def test_the_label_turns_the_scores_of_a_classifier_round(tiny_classifier, tmp_path):
    texts = (["Mix flour and water.", "No."], ["How?", "Why?"])
    scores = {}
    for label in ("LABEL_0", "safe", "harmful"):
        folder = shutil.copytree(tiny_classifier, tmp_path / label)
        edit_json(folder / "config.json", id2label={"0": label}, label2id={label: 0})
        check_checkpoint("detector", str(folder))
        scores[label] = HarmDetector.from_pretrained(folder, dtype="float32").score(*texts)
    assert scores["safe"] == scores["LABEL_0"]
    assert scores["harmful"] == pytest.approx([1 - score for score in scores["safe"]], abs=1e-9)


def test_a_merged_detector_needs_its_head(tiny_classifier, tmp_path):
    weights = load_file(tiny_classifier / "model.safetensors")
    head = weights.pop("score.weight")
    for number, (state, named) in enumerate(
        [
            (weights, "lacks its head"),
            ({**weights, "score.weight": head.repeat(2, 1)}, r"score\.weight has shape \[2, 32\]"),
            ({**weights, "score.weight": head.to(torch.int8)}, r"score\.weight as I8"),
        ]
    ):
        folder = shutil.copytree(tiny_classifier, tmp_path / str(number))
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=named):
            check_checkpoint("detector", str(folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors.index.json", "[]"),
        ("model.safetensors.index.json", '{"weight_map": {"x": "../../y.safetensors"}}'),
        ("config.json", "[]"),
        ("config.json", '{"model_type": "llama", "num_hidden_layers": 1000000}'),
        ("config.json", '{"model_type": "resnet"}'),
        ("config.json", '{"model_type": "llama", "num_labels": "x"}'),
        ("tokenizer.json", "{}"),
    ],
)
def test_damaged_bases_are_one_line(tiny_lm, tiny_detector, tmp_path, file, content):
    base = shutil.copytree(tiny_lm, tmp_path / "base")
    (base / file).write_text(content)
    for read in (check_checkpoint, lambda kind, path, base: HarmDetector.from_pretrained(path, base=base)):
        with pytest.raises(InputError) as caught:
            read("detector", str(tiny_detector), base=str(base))
        assert "\n" not in str(caught.value)


def test_a_base_that_is_no_text_or_no_path_is_one_line(tiny_detector, tmp_path):
    for number, named in enumerate((5, "x" * 400, "a\x00b", "~nobody/x", "")):
        folder = shutil.copytree(tiny_detector, tmp_path / str(number))
        edit_json(folder / "protector_config.json", base_model=named)
        edit_json(folder / "adapter_config.json", base_model_name_or_path=named)
        with pytest.raises(InputError):
            open_checkpoint("detector", str(folder))
