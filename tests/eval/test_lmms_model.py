"""Our models in lmms-eval: a whole evaluation of a small task, guarded and unguarded. Skipped where it is absent."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from llava.errors import InputError
from llava.eval import lmms_model
from llava.model.loading import load_mllm
from llava.protector.protector import Protector

NEEDS_LMMS = pytest.mark.skipif(lmms_model.Base is object, reason="lmms-eval is not installed; see docs/evaluation.md")

TASK = """\
task: tiny_bread
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
  cache_dir: {cache}
output_type: generate_until
test_split: test
doc_to_visual: !function functions.doc_to_visual
doc_to_text: !function functions.doc_to_text
doc_to_target: answer
generation_kwargs:
  max_new_tokens: 12
  temperature: 0
  do_sample: false
process_results: !function functions.process_results
metric_list:
  - metric: length
    aggregation: mean
    higher_is_better: true
metadata:
  version: 0
"""
FUNCTIONS = """\
from PIL import Image


def doc_to_visual(doc):
    return [Image.new("RGB", (40, 30), "red")] if doc["picture"] else []


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return "<image>\\n" + doc["question"] if doc["picture"] else doc["question"]


def process_results(doc, results):
    return {"length": len(results[0])}
"""


@pytest.fixture
def task_folder(tmp_path) -> Path:
    """A task of five questions, two of them with a picture."""
    folder = tmp_path / "tiny_bread"
    folder.mkdir()
    rows = [
        {"question": f"How do I bake {'very ' * n}good bread?", "picture": n % 3 == 1, "answer": ""} for n in range(5)
    ]
    (folder / "data.json").write_text(json.dumps(rows))
    (folder / "functions.py").write_text(FUNCTIONS)
    (folder / "tiny_bread.yaml").write_text(TASK.format(data=folder / "data.json", cache=tmp_path / "cache"))
    return folder


def evaluate(model: str, folder: Path, **model_args) -> list[str]:
    """Run the task through lmms-eval and return the answers in question order."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.tasks import TaskManager

    assert "mllm_protector" in MODEL_REGISTRY_V2.list_model_names(), "the entry point is not installed"
    results = simple_evaluate(
        model=model,
        model_args=",".join(f"{name}={value}" for name, value in model_args.items()),
        tasks=["tiny_bread"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=2,
        device="cpu",
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = sorted(results["samples"]["tiny_bread"], key=lambda sample: sample["doc_id"])
    return [sample["resps"][0][0] for sample in samples]


@NEEDS_LMMS
@pytest.mark.slow
def test_guarded_and_unguarded_models_run_through_lmms_eval(task_folder, tiny_llava, tiny_classifier, tiny_lm):
    from llava.constants import REFUSAL

    plain = evaluate("mllm_protector_unguarded", task_folder, pretrained=tiny_llava)
    model = load_mllm(tiny_llava, device="cpu")
    picture = Image.new("RGB", (40, 30), "red")
    assert plain == [
        model.generate(
            [f"How do I bake {'very ' * n}good bread?"], [picture if n % 3 == 1 else None], max_new_tokens=12
        )[0]
        for n in range(5)
    ]
    guard = {"pretrained": tiny_llava, "detector": tiny_classifier, "detoxifier": "none"}
    assert evaluate("mllm_protector", task_folder, **guard, threshold=1.0) == plain
    assert evaluate("mllm_protector", task_folder, **guard, threshold=1e-9) == [REFUSAL] * 5


def test_a_rewrite_is_no_longer_than_the_task_allows(tiny_llava, tiny_classifier, tiny_lm, monkeypatch):
    model = object.__new__(lmms_model.GuardedModel)  # lmms-eval, which makes it elsewhere, is not needed here
    model.seed, model.actions, model.task_dict = 0, Counter(), {"t": {"test": [{}]}}
    model.model = load_mllm(tiny_llava, device="cpu")
    model.protector = Protector.from_pretrained(tiny_classifier, tiny_lm, 1e-9, device="cpu")
    rewrite, limits = model.protector.detoxifier.rewrite, []

    def note_limit(prompts, responses, *, max_new_tokens, **options):
        limits.append(max_new_tokens)
        return rewrite(prompts, responses, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr(model.protector.detoxifier, "rewrite", note_limit)
    for settings in ({"max_new_tokens": 4}, {"max_new_tokens": 9}, {}):
        request = SimpleNamespace(args=("How do I bake bread?", settings, lambda doc: [], 0, "t", "test"), idx=0)
        model.answer([request])
    assert limits == [4, 9, lmms_model.DEFAULT_MAX_NEW_TOKENS]
    assert model.actions.total() == 3


@NEEDS_LMMS
def test_several_pictures_and_likelihoods_are_refused(tiny_llava):
    model = lmms_model.UnguardedModel(str(tiny_llava), device="cpu")
    model.task_dict = {"t": {"test": [{}]}}
    with pytest.raises(InputError, match="task t shows 2 visuals"):
        model.open_visual(lambda doc: [Image.new("RGB", (2, 2))] * 2, 0, "t", "test")
    with pytest.raises(InputError, match="generate_until"):
        model.loglikelihood([])
    with pytest.raises(InputError, match="generate_until"):
        model.generate_until_multi_round([])


@pytest.mark.skipif(lmms_model.Base is not object, reason="lmms-eval is installed")
def test_without_lmms_eval_a_line_says_so(tiny_llava):
    with pytest.raises(InputError, match="lmms-eval is not installed"):
        lmms_model.UnguardedModel(str(tiny_llava))


def test_settings_of_a_task_are_read():
    assert lmms_model.read_temperature({"temperature": 0.7}) == 0.7
    assert lmms_model.read_temperature({"temperature": 0.7, "do_sample": False}) == 0.0
    assert lmms_model.read_temperature({}) == 0.0


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"num_beams": 3}, True),
        ({"temperature": 1.0, "top_p": 0.5}, True),
        ({"temperature": 0, "top_p": 0.5}, False),
        ({"num_beams": 1, "top_p": None}, False),
    ],
)
def test_settings_that_are_not_followed_are_named(settings, warned, caplog):
    lmms_model.read_temperature(settings)
    assert ("is not followed" in caplog.text) == warned
