import pytest
import torch

from llava.errors import InputError
from llava.model.devices import pick_device, pick_dtype


def test_detected_device_matches_this_machine():
    expected = torch.accelerator.current_accelerator(check_available=True)
    assert pick_device().type == (expected.type if expected else "cpu")
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", ""])
def test_unusable_device_is_one_line(name):
    with pytest.raises(InputError, match="--device cpu") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)


def test_dtypes():
    cpu = torch.device("cpu")
    assert pick_dtype(cpu) is torch.float32
    assert pick_dtype(cpu, "bfloat16") is torch.bfloat16
    with pytest.raises(InputError, match="half"):
        pick_dtype(cpu, "half")
