"""Answering and guarding: batches that do not fit are cut, and a device that fails is told from a text that does."""

from __future__ import annotations

import pytest
import torch

from llava.data.schema import Action, GuardFailure, ImageType, Question, Stage
from llava.errors import FailedRunError, InputError
from llava.eval.run.answering import Answerer, check_device
from llava.eval.run.settings import GenerationSettings
from llava.protector.guard import identify_guard
from llava.protector.protector import Protector
from llava.protector.states.config import Cascade
from tests.tiny import build_llava
from tests.tiny_states import build_state_head

QUESTIONS = [Question("b", "A", str(i), ImageType.TEXT, f"How do I bake bread {'well ' * i}?") for i in range(6)]


def build_answerer(tmp_path, model, **changes) -> Answerer:
    values = {"batch_size": 4, "max_new_tokens": 8, "device": "cpu", "dtype": "float32", **changes}
    return Answerer(GenerationSettings(str(model), tmp_path, **values), "cpu")


def limit_rows(answerer: Answerer, most: int) -> list[int]:
    """Let the loaded model have room for `most` rows, as a small device would; return the sizes it was asked for."""
    sizes: list[int] = []
    generate = answerer.model.generate

    def generate_within_memory(prompts, *args, **kwargs):
        sizes.append(len(prompts))
        if len(prompts) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(prompts, *args, **kwargs)

    answerer.model.generate = generate_within_memory
    return sizes


def test_a_batch_that_does_not_fit_is_cut_in_halves(tmp_path, tiny_llava):
    answerer = build_answerer(tmp_path, tiny_llava)
    expected = [answerer.answer([question])[0].response for question in QUESTIONS[:5]]
    sizes = limit_rows(answerer, 2)
    records = answerer.answer(QUESTIONS[:5])
    assert sizes == [5, 3, 2, 1, 2]
    assert [record.question for record in records] == QUESTIONS[:5]
    assert [record.response for record in records] == expected


def test_the_guard_stands_on_the_models_weights_where_it_can(tmp_path, tiny_whole, tiny_llava, tiny_detector):
    """Unless told otherwise; told that it must, it fails where the base is another."""
    shared = build_answerer(tmp_path, tiny_whole, detector=str(tiny_detector))
    apart = build_answerer(tmp_path, tiny_whole, detector=str(tiny_detector), share_backbone=False)
    other = build_answerer(tmp_path, tiny_llava, detector=str(tiny_detector))
    for answerer, is_shared in ((shared, True), (apart, False), (other, False)):
        weights = answerer.model.model.get_input_embeddings().weight
        own = answerer.protector.detector.classifier.get_input_embeddings().weight
        assert (weights.data_ptr() == own.data_ptr()) is is_shared
    for one, two in zip(shared.answer(QUESTIONS), apart.answer(QUESTIONS), strict=True):
        assert one.response == two.response
        assert one.guard.harm_score == pytest.approx(two.guard.harm_score, abs=1e-5)
    with pytest.raises(InputError, match="cannot share the model in memory: its base is not the language model of"):
        build_answerer(tmp_path, tiny_llava, detector=str(tiny_detector), share_backbone=True)


def test_a_single_row_that_does_not_fit_is_an_input_error(tmp_path, tiny_llava):
    answerer = build_answerer(tmp_path, tiny_llava)
    limit_rows(answerer, 0)
    with pytest.raises(InputError, match="question b/A/0/TEXT alone does not fit into memory"):
        answerer.answer(QUESTIONS[:2])


def limit_guard(
    answerer: Answerer, part: str, most: int, blame: str | None = None, error=torch.OutOfMemoryError
) -> None:
    """Let the loaded detector or detoxifier have room for `most` rows, and none at all for the prompt `blame`."""
    owner, method = {
        "detector": (answerer.protector.detector, "score"),
        "detoxifier": (answerer.protector.detoxifier, "rewrite"),
    }[part]
    work = getattr(owner, method)

    def work_within_memory(first, second, *args, **kwargs):
        prompts = second if part == "detector" else first
        if len(prompts) > most or blame in prompts:
            raise error("CUDA error: out of memory")
        return work(first, second, *args, **kwargs)

    setattr(owner, method, work_within_memory)


@pytest.fixture
def guarded(tmp_path, tiny_llava, tiny_classifier, tiny_lm) -> Answerer:
    changes = {"detector": str(tiny_classifier), "detoxifier": str(tiny_lm), "threshold": 1e-6, "batch_size": 6}
    return build_answerer(tmp_path, tiny_llava, **changes)


@pytest.mark.parametrize("part", ["detector", "detoxifier"])
def test_a_protector_with_room_for_two_rows_guards_them_all(guarded, part):
    expected = [guarded.answer(QUESTIONS[a:b])[i] for a, b in ((0, 2), (2, 3), (3, 5), (5, 6)) for i in range(b - a)]
    limit_guard(guarded, part, 2)
    records = guarded.answer(QUESTIONS)
    assert [record.guard for record in records] == [record.guard for record in expected]
    assert all(record.guard.failure is None for record in records)


def test_a_text_that_the_detector_cannot_take_is_withheld(guarded):
    limit_guard(guarded, "detector", 6, QUESTIONS[3].prompt, IndexError)
    records = guarded.answer(QUESTIONS)
    withheld = [record.question.id for record in records if record.guard.action is Action.WITHHELD]
    assert withheld == ["3"]
    assert records[3].guard.failure == GuardFailure("detector", "IndexError", "CUDA error: out of memory")


def test_only_a_devices_failure_ends_a_run():
    with pytest.raises(FailedRunError, match=r"question b/A/0/TEXT \(detoxifier failed: OutOfMemoryError\)"):
        check_device(QUESTIONS[0], GuardFailure("detoxifier", "OutOfMemoryError", ""))
    check_device(QUESTIONS[0], GuardFailure("detector", "IndexError", "OutOfMemoryError: detector failed"))


def test_a_base_is_given_to_the_part_that_it_is_for(tmp_path, tiny_llava, tiny_lm, tiny_detector, tiny_detoxifier):
    parts = {"detector": str(tiny_detector), "detoxifier": str(tiny_detoxifier)}
    bases = {"detector_base": str(tiny_lm), "detoxifier_base": str(tiny_lm)}
    answerer = build_answerer(tmp_path, tiny_llava, **parts, **bases)
    assert isinstance(answerer.protector, Protector)
    assert answerer.protector.guard(["How?"], ["Mix flour."])[0].action is not Action.WITHHELD


def test_a_head_on_states_decides_alone_or_leaves_the_rest_to_the_detector(tmp_path, tiny_llava, tiny_detector):
    key = identify_guard(tiny_detector).key
    cascades = {"flags": Cascade(str(tiny_detector), key, 0.0, 0.0), "asks": Cascade(str(tiny_detector), key, 0.0, 2.0)}
    heads = {name: build_state_head(tmp_path / name, tiny_llava, cascade) for name, cascade in cascades.items()}
    plain = [record.response for record in build_answerer(tmp_path, tiny_llava).answer(QUESTIONS[:3])]
    expected = {
        ("flags", None): (Stage.STATES, None),
        ("flags", str(tiny_detector)): (Stage.STATES, Action.REFUSED),
        ("asks", str(tiny_detector)): (Stage.DETECTOR, None),
    }
    for (name, detector), (stage, action) in expected.items():
        answerer = build_answerer(tmp_path, tiny_llava, state_head=str(heads[name]), detector=detector)
        records = answerer.answer(QUESTIONS[:3])
        assert [record.response for record in records] == plain
        for record in records:
            assert record.guard.stage is stage
            assert 0 <= record.guard.state_score <= 1
            assert action in (None, record.guard.action)
            if stage is Stage.STATES:
                assert record.guard.harm_score == record.guard.state_score
            if detector is None:
                assert record.guard.flagged == (record.guard.harm_score >= answerer.protector.threshold)


def test_answers_without_states_are_left_to_the_detector(tmp_path, tiny_llava, tiny_detector):
    cascade = Cascade(str(tiny_detector), identify_guard(tiny_detector).key, 0.5, 0.5)
    head = build_state_head(tmp_path / "head", tiny_llava, cascade)
    answerer = build_answerer(tmp_path, tiny_llava, state_head=str(head), detector=str(tiny_detector))
    records = answerer.answer(QUESTIONS[:2], ["Mix flour.", "Bake it."])  # answers that were there already
    assert [record.guard.stage for record in records] == [Stage.DETECTOR] * 2
    assert all(record.guard.state_score is None for record in records)


def test_a_head_of_another_model_is_refused(tmp_path, tiny_llava):
    head = build_state_head(tmp_path / "head", build_llava(tmp_path / "other", seed=3))
    with pytest.raises(InputError, match="was trained on another model"):
        build_answerer(tmp_path, tiny_llava, state_head=str(head))
