import pytest
import torch
from transformers import AutoModelForSequenceClassification

from llava.errors import InputError
from llava.protector.classifier import HarmClassifier, load_sequence_classifier, pad_windows
from llava.protector.text import Window


def test_last_pooling_equals_the_hugging_face_classifier(tiny_classifier):
    reference = AutoModelForSequenceClassification.from_pretrained(tiny_classifier).eval()
    ours = HarmClassifier(load_sequence_classifier(str(tiny_classifier), with_head=True)).eval()
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 2, 2]])  # pad = 2
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids, mask).logits, reference(ids, mask).logits)


def test_last_pooling_goes_by_the_mask_when_the_text_holds_eos(tiny_classifier):
    model = HarmClassifier(load_sequence_classifier(str(tiny_classifier))).eval()
    hidden = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    assert torch.equal(model.pool(hidden, torch.tensor([[1, 1, 1], [1, 1, 0]])), hidden[[0, 1], [2, 1]])


def test_mean_pooling_by_hand(tiny_classifier):
    model = HarmClassifier(load_sequence_classifier(str(tiny_classifier)), pooling="mean")
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    assert model.pool(hidden, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 3.0]]


def test_mean_response_pooling_by_hand(tiny_classifier):
    model = HarmClassifier(load_sequence_classifier(str(tiny_classifier)), pooling="mean_response")
    hidden = torch.tensor([[[100.0, 100.0], [1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 1, 0]])
    assert model.pool(hidden, mask, torch.tensor([[0, 1, 1, 0]])).tolist() == [[2.0, 3.0]]
    assert torch.equal(model.pool(hidden, mask), hidden[:, :3].mean(1))


def test_response_pooling_still_reads_the_question(tiny_lm):
    model = HarmClassifier(load_sequence_classifier(str(tiny_lm)), pooling="mean_response").eval()
    with torch.inference_mode():
        logits = model(**pad_windows([Window([5, 6, 7], 1), Window([8, 6, 7], 1)], 2)).logits[:, 0]
    assert logits[0] != logits[1]


@pytest.mark.parametrize("pooling", ["last", "mean", "mean_response"])
def test_padding_does_not_change_the_logit(tiny_lm, pooling):
    model = HarmClassifier(load_sequence_classifier(str(tiny_lm)), pooling).eval()
    with torch.inference_mode():
        alone = model(torch.tensor([[5, 6, 7]])).logits
        padded = model(torch.tensor([[5, 6, 7, 2, 2]]), torch.tensor([[1, 1, 1, 0, 0]])).logits
    torch.testing.assert_close(alone, padded)


def test_fewer_layers_are_kept(tiny_lm):
    model = load_sequence_classifier(str(tiny_lm), num_layers=1)
    assert len(model.model.layers) == 1
    assert model.config.num_hidden_layers == 1


def test_a_causal_lm_is_no_merged_detector(tiny_lm):
    with pytest.raises(InputError, match=r"score\.weight|labels"):
        load_sequence_classifier(str(tiny_lm), with_head=True)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        load_sequence_classifier(str(tmp_path))


@pytest.mark.parametrize("adapted", [False, True])
def test_fsdp_finds_the_decoder_layers(tiny_lm, adapted):
    """Sharding goes by layer, with an adapter around the network or without: accelerate's own policy says so."""
    from accelerate import FullyShardedDataParallelPlugin
    from peft import LoraConfig, get_peft_model
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    model = HarmClassifier(load_sequence_classifier(str(tiny_lm)))
    if adapted:
        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"]))
    plugin = FullyShardedDataParallelPlugin(auto_wrap_policy=transformer_auto_wrap_policy)
    plugin.set_auto_wrap_policy(model)
    wrapped = [
        module
        for module in model.modules()
        if plugin.auto_wrap_policy(module=module, recurse=False, nonwrapped_numel=0)
    ]
    assert [type(module) for module in wrapped] == [LlamaDecoderLayer, LlamaDecoderLayer]


def test_a_detector_in_eight_bits_scores_nearly_the_same(tmp_path):
    """Its layers are packed, the head is not; quantization moves a logit a little, and says nothing else."""
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    from tests.tiny import build_causal_lm

    base = str(build_causal_lm(tmp_path / "base", hidden_size=128, intermediate_size=256))
    whole = load_sequence_classifier(base)
    packed = load_sequence_classifier(
        base, quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["score"])
    )
    packed.score.load_state_dict(whole.score.state_dict())
    types = {name: parameter.dtype for name, parameter in packed.named_parameters()}
    assert types["model.layers.0.self_attn.q_proj.weight"] is torch.int8
    assert types["score.weight"] is torch.float32
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    with torch.inference_mode():
        # Packed layers lie on the GPU where there is one.
        expected, found = (
            model(ids.to(model.device)).logits.cpu()
            for model in (HarmClassifier(network).eval() for network in (whole, packed))
        )
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1 * expected.abs().max().item())
