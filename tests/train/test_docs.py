"""docs/training.md and docs/paper_index.md: their flags, files and recipes exist."""

import re
from pathlib import Path

import pytest

from llava.data.training.splits import HELD_OUT_FRACTION
from llava.train.arguments import DataArguments, FlagParser, ModelArguments, RunArguments, parse_arguments
from llava.train.detoxifier import DetoxifierArguments
from llava.train.harm_detector import DetectorArguments
from llava.train.llava import LlavaArguments
from llava.train.llava_model import LlavaModelArguments

ROOT = Path(__file__).resolve().parents[2]
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
INDEX = (ROOT / "docs" / "paper_index.md").read_text(encoding="utf-8")
RECIPES = ROOT / "llava" / "train" / "configs"
CONFIGS = sorted([*RECIPES.glob("*_detector.yaml"), *RECIPES.glob("*_detoxifier.yaml")])
LLAVA_GROUPS = (LlavaArguments, LlavaModelArguments, RunArguments)
SHARED = (DataArguments, ModelArguments, RunArguments)
OTHER_PROGRAMS = {
    *("--hostfile", "--module", "--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_endpoint", "--rdzv_id"),
    *("--nodes", "--ntasks-per-node", "--gpus-per-node"),
    *("--model-path", "--model-base", "--save-model-path", "--logdir"),
    *("--base_model_name", "--adapter_model_name", "--output_name", "--dtype", "--tolerance"),
    *("--detoxifier", "--detector", "--data", "--held-out", "--judge", "--embedding-model", "--output", "--only"),
    *("--help", "--config", "--paper", "--adapter", "--max-false-positive-rate"),
}


def test_every_flag_exists():
    known = set(OTHER_PROGRAMS)
    for group in (DetectorArguments, DetoxifierArguments):
        known |= set(FlagParser((group, *SHARED))._option_string_actions)
    known |= set(FlagParser(LLAVA_GROUPS)._option_string_actions)
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", TRAINING)) - known == set()


@pytest.mark.parametrize("text", [TRAINING, INDEX], ids=["training", "paper_index"])
def test_every_named_file_exists(text):
    named = re.findall(r"`((?:llava|scripts|docs)/[\w./]+)`", text)
    assert named
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_index_names_tests_that_exist():
    named = re.findall(r"`([\w/]*test_\w+\.py)`", INDEX)
    assert len(named) > 20
    for name in named:
        assert (ROOT / "tests" / name).is_file(), name


def test_quoted_numbers_are_right():
    assert f"{HELD_OUT_FRACTION:.0%} of the **prompts**" in TRAINING


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes_are_read(path):
    group = DetoxifierArguments if "detoxifier" in path.stem else DetectorArguments
    own, data, model, run = parse_arguments((group, *SHARED), ["--config", str(path), "--output-dir", "out"], "Test.")
    assert data.train_data
    assert model.lora
    assert run.learning_rate < 1e-2
    assert own.text_form == "prompt+response"


@pytest.mark.parametrize(
    ("name", "rate", "batch"), [("pretrain", 1e-3, 32), ("finetune", 2e-5, 16), ("finetune_lora", 2e-4, 16)]
)
def test_the_llava_recipes_have_the_released_values(name, rate, batch):
    """LLaVA 1.5: arXiv 2310.03744, table 9, and its authors' scripts."""
    flags = ["--config", str(RECIPES / f"llava_{name}.yaml"), "--train-data", "rows.json"]
    llava, model, run = parse_arguments(LLAVA_GROUPS, flags, "Test.")
    assert (run.learning_rate, run.per_device_train_batch_size, run.num_train_epochs) == (rate, batch, 1)
    assert (llava.max_length, run.lr_scheduler_type, run.weight_decay) == (2048, "cosine", 0)
    assert (model.stage, model.lora) == (name.partition("_")[0], name.endswith("lora"))
    assert (model.lora_r, model.lora_alpha) == (128, 256)


@pytest.mark.parametrize(("name", "windows"), [("embedded_detector", 1), ("paper_detector", 1)])
def test_recipes_that_truncate_say_so(name, windows):
    """Unless told otherwise no part of a long response is left out."""
    groups = (DetectorArguments, *SHARED)
    assert parse_arguments(groups, ["--train-data", "rows.jsonl"], "Test.")[0].max_windows == 0
    flags = ["--config", str(RECIPES / f"{name}.yaml")]
    assert parse_arguments(groups, flags, "Test.")[0].max_windows == windows


def test_the_paper_recipes_have_the_released_values():
    for name, rank in (("paper_detector", 32), ("paper_detoxifier", 128)):
        path = ROOT / "llava" / "train" / "configs" / f"{name}.yaml"
        group = DetoxifierArguments if "detoxifier" in name else DetectorArguments
        own, _, model, run = parse_arguments((group, *SHARED), ["--config", str(path)], "Test.")
        assert (model.lora_r, model.lora_alpha, own.max_length) == (rank, 32, 512)
        assert (run.learning_rate, run.num_train_epochs, run.per_device_train_batch_size) == (2e-5, 4, 4)
