import json
import shutil
from dataclasses import replace

import pytest

from llava.errors import InputError
from llava.protector.checkpoints import check_checkpoint, load_checkpoint_tokenizer, open_checkpoint
from llava.protector.detector import HarmDetector
from llava.protector.detoxifier import Detoxifier
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
