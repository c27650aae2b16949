import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import InputError
from llava.train.base import newest_checkpoint, parse_by_source, prepare_output, run_entry_point
from llava.train.harm_detector import main
from tests.train.samples import write_labelled


def write_state(folder, step, torn=False):
    folder.mkdir(parents=True)
    text = json.dumps({"global_step": step})
    (folder / "trainer_state.json").write_text(text[:-3] if torn else text)


def test_a_finished_training_has_left_its_process_group(tmp_path):
    def train(argv):
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
        torch.distributed.all_reduce(torch.ones(2))

    assert run_entry_point(train, []) == 0
    assert not torch.distributed.is_initialized()
    assert run_entry_point(lambda argv: None, []) == 0, "there is nothing to leave"


def test_the_process_group_of_the_calling_program_stays(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        assert run_entry_point(lambda argv: None, []) == 0
        torch.distributed.all_reduce(torch.ones(2))
    finally:
        torch.distributed.destroy_process_group()


def test_the_newest_complete_checkpoint_is_found(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    write_state(tmp_path / "checkpoint-9", 9)
    write_state(tmp_path / "checkpoint-10", 10)
    write_state(tmp_path / "checkpoint-11", 11, torn=True)
    (tmp_path / "checkpoint-12").mkdir()
    write_state(tmp_path / "checkpoint-13", 7)
    write_state(tmp_path / "checkpoint-last", 99)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_output_folder_rules(tmp_path):
    assert prepare_output(str(tmp_path / "new"), resume=False) is None
    assert prepare_output(str(tmp_path / "new"), resume=True) is None
    write_state(tmp_path / "run" / "checkpoint-3", 3)
    with pytest.raises(InputError, match="--resume"):
        prepare_output(str(tmp_path / "run"), resume=False)
    assert prepare_output(str(tmp_path / "run"), resume=True) == tmp_path / "run" / "checkpoint-3"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        prepare_output(str(tmp_path / "file"), resume=True)


@pytest.mark.parametrize("text", ["a", "a=b", "=1"])
def test_bad_values_by_source(text):
    with pytest.raises(InputError, match="--flag"):
        parse_by_source(text, "--flag")


def test_resuming_after_a_kill_equals_the_unbroken_run(tiny_lm, tmp_path):
    """A run killed while it wrote its third checkpoint goes on from the second and ends at the same numbers.

    Dropout is on, so the random state must come back too.
    """

    def run(output, *more):
        data = write_labelled(tmp_path / "rows.jsonl", 40)
        arguments = [
            *("--base", str(tiny_lm), "--train-data", str(data), "--output-dir", str(output), "--max-length", "64"),
            *("--learning-rate", "1e-2", "--lora-dropout", "0.2", "--num-train-epochs", "2", "--disable-tqdm", "true"),
            *("--save-strategy", "steps", "--save-steps", "2", "--save-total-limit", "9"),
        ]
        assert main([*arguments, "--per-device-train-batch-size", "4", *more]) == 0
        return load_file(output / "adapter_model.safetensors")

    unbroken = run(tmp_path / "whole")
    killed = tmp_path / "killed"
    killed.mkdir()
    for step in (2, 4):
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", killed / f"checkpoint-{step}")
    # What a kill in the middle of writing leaves: some files, one of them cut, no trainer_state.json.
    torn = killed / "checkpoint-6"
    torn.mkdir()
    weights = (tmp_path / "whole" / "checkpoint-6" / "adapter_model.safetensors").read_bytes()
    (torn / "adapter_model.safetensors").write_bytes(weights[: len(weights) // 2])
    resumed = run(killed, "--resume")
    assert resumed.keys() == unbroken.keys()
    for name, tensor in unbroken.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=1e-7)
    assert (killed / "metrics.json").read_text() == (tmp_path / "whole" / "metrics.json").read_text()


def test_a_checkpoint_whose_adapter_is_not_whole_is_not_gone_on_from(tiny_lm, tmp_path, capsys):
    """The Trainer would put fresh tensors in the place of those that are missing."""
    data = write_labelled(tmp_path / "rows.jsonl", 12)
    flags = [
        *("--base", str(tiny_lm), "--train-data", str(data), "--output-dir", str(tmp_path / "out"), "--max-steps", "2"),
        *("--save-strategy", "steps", "--save-steps", "1", "--max-length", "32", "--disable-tqdm", "true"),
    ]
    assert main(flags) == 0
    file = tmp_path / "out" / "checkpoint-2" / "adapter_model.safetensors"
    whole = load_file(file)
    for lost in ("layers.1.", "score"):
        save_file({key: value for key, value in whole.items() if lost not in key}, file, metadata={"format": "pt"})
        assert main([*flags, "--resume"]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert "checkpoint-2 is incomplete: it lacks" in message
        assert lost in message
