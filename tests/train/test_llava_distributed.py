"""A LLaVA trained in several processes takes the same steps as in one. Real launchers, real processes, on the CPU."""

import pytest
import torch
from safetensors.torch import load_file

from tests.train.conversations import write_conversations
from tests.train.test_distributed import SCRIPTS, launch

STAGES = {"pretrain": (), "finetune": ("--train-vision-tower",), "finetune_lora": ("--lora-r", "4")}


class Llava:
    """Trains LLaVAs by one of the shells on the same rows, each into a folder of its own."""

    def __init__(self, base, folder, stage):
        self.base, self.folder, self.stage = base, folder, stage
        self.data = str(write_conversations(folder / "data"))

    def losses(self, name, launcher, processes, batch_size, *more):
        common = ("--max-length", "256", "--dataloader-num-workers", "0", "--max-grad-norm", "1", *STAGES[self.stage])
        output, size = self.folder / name, ("--per-device-train-batch-size", str(batch_size))
        return launch(f"{self.stage}.sh", self.base, self.data, output, launcher, processes, *common, *size, *more)

    def compare(self, one="one", two="two"):
        name = "adapter_model.safetensors" if self.stage == "finetune_lora" else "model.safetensors"
        first, second = (load_file(self.folder / run / name) for run in (one, two))
        assert first.keys() == second.keys()
        for key, tensor in first.items():
            torch.testing.assert_close(second[key], tensor, rtol=1e-2, atol=1e-3)


@pytest.fixture(params=STAGES)
def llava(tiny_llava, tmp_path, request):
    return Llava(tiny_llava, tmp_path, request.param)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(llava):
    """Batches with pictures and without: no process waits for a gradient that another never sends."""
    one = llava.losses("one", "python", 1, 4)
    two = llava.losses("two", "torchrun", 2, 2)
    assert len(one) == 12
    assert two == pytest.approx(one, rel=1e-3)
    llava.compare()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["zero2", "zero3", "fsdp"])
def test_sharded_training_takes_the_steps_of_one_process(llava, how):
    one = llava.losses("one", "python", 1, 4)
    if how == "fsdp":
        two = llava.losses("two", "torchrun", 2, 2, "--fsdp", "full_shard", "--base-dtype", "float32")
    else:
        pytest.importorskip("deepspeed")
        two = llava.losses("two", "deepspeed", 2, 2, "--deepspeed", str(SCRIPTS / f"{how}.json"))
    assert two == pytest.approx(one, rel=1e-3)
    llava.compare()
