"""A LLaVA trained in several processes takes the same steps as in one, on the CPU."""

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
        self.known = {}
        self.data = str(write_conversations(folder / "data"))

    def losses(self, name, launcher, processes, batch_size, *more):
        common = ("--max-length", "256", "--dataloader-num-workers", "0", "--max-grad-norm", "1", *STAGES[self.stage])
        output, size = self.folder / name, ("--per-device-train-batch-size", str(batch_size))
        return launch(f"{self.stage}.sh", self.base, self.data, output, launcher, processes, *common, *size, *more)

    def losses_of_one(self):
        """Return the losses of one process, which the other ways are compared with; it is trained once."""
        if "one" not in self.known:
            self.known["one"] = self.losses("one", "fork", 1, 4)
        return self.known["one"]

    def compare_with_one(self, name):
        file = "adapter_model.safetensors" if self.stage == "finetune_lora" else "model.safetensors"
        first, second = (load_file(self.folder / run / file) for run in ("one", name))
        assert first.keys() == second.keys()
        for key, tensor in first.items():
            torch.testing.assert_close(second[key], tensor, rtol=1e-2, atol=1e-3)


# What is compared with the same training stays in one process of the tests.
@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in STAGES])
def llava(tiny_llava, tmp_path_factory, request):
    return Llava(tiny_llava, tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(llava):
    """Batches with pictures and without: no process waits for a gradient that another never sends."""
    one = llava.losses_of_one()
    two = llava.losses("two", "torchrun" if llava.stage == "finetune_lora" else "fork", 2, 2)
    assert len(one) == 12
    assert two == pytest.approx(one, rel=1e-3)
    llava.compare_with_one("two")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["zero2", "zero3", "fsdp"])
def test_sharded_training_takes_the_steps_of_one_process(llava, how):
    one = llava.losses_of_one()
    if how == "fsdp":
        two = llava.losses(how, "fork", 2, 2, "--fsdp", "full_shard", "--base-dtype", "float32")
    else:
        pytest.importorskip("deepspeed")
        launcher = "deepspeed" if (llava.stage, how) == ("finetune", "zero3") else "fork"
        two = llava.losses(how, launcher, 2, 2, "--deepspeed", str(SCRIPTS / f"{how}.json"))
    assert two == pytest.approx(one, rel=1e-3)
    llava.compare_with_one(how)
