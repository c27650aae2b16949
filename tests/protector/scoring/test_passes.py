import dataclasses

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, MistralConfig

from llava import HarmDetector
from llava.protector.classifier import HarmClassifier
from llava.protector.scoring.passes import Settings, can_share, cut_passes, find_groups, form_blocks, read_logits
from llava.protector.text import Window

QUESTIONS = ["How do I bake bread?", "Why is the water safe, and what does the image show? " * 2]
ANSWERS = ["Mix.", "Mix flour and water.", "I am sorry, I cannot help.", "Steps to follow: 1. first 2. second " * 12]


def build(pooling, stretches=(), config=LlamaConfig, **changes):
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    settings = config(vocab_size=60, num_labels=1, pad_token_id=0, initializer_range=0.2, **sizes, **heads, **changes)
    return HarmClassifier(AutoModelForSequenceClassification.from_config(settings), pooling, stretches, 0.1).eval()


def draw(count, heads=4):
    generator = torch.Generator().manual_seed(1)

    def ids(length):
        return torch.randint(1, 60, (length,), generator=generator).tolist()

    shared = [ids(length) for length in (8, 9, 30, 41)[:heads]]
    rows = []
    for place in range(count):
        head = shared[place % heads]
        rows.append(Window([*head, *ids(1 + 7 * place % 50)], len(head)))
    return rows


def count_tokens(network, call):
    """Return how many tokens went through the network's layers, padding included, and what the call returned."""
    seen = []
    handle = network.backbone.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    try:
        found = call()
    finally:
        handle.remove()
    return sum(shape[0] * shape[1] for shape in seen), found


@pytest.mark.parametrize(
    ("pooling", "stretches"), [("last", ()), ("mean", ()), ("mean_response", ()), ("mean_response", (4, 16))]
)
def test_logits_are_those_of_each_window_alone(pooling, stretches):
    network = build(pooling, stretches)
    windows = draw(30)
    alone = [network(torch.tensor([w.ids]), None, mask_of(w)).logits.item() for w in windows]
    for budget in (1, 200, 4096):
        assert read_logits(network, windows, budget=budget) == pytest.approx(alone, abs=1e-5)
    assert max(alone) - min(alone) > 0.05  # or equal logits would say nothing


def mask_of(window):
    return torch.tensor([[0] * window.head + [1] * (len(window.ids) - window.head)])


def test_a_shared_question_is_read_once():
    network = build("mean_response")
    can_share(network)  # its own passes are made once for a network
    windows = draw(40)
    plain = sum(len(window.ids) for window in windows)
    tails = sum(len(window.ids) - window.head for window in windows)
    tokens, _ = count_tokens(network, lambda: read_logits(network, windows))
    assert tails + 8 + 9 + 30 + 41 <= tokens < 0.8 * plain


def test_the_same_window_is_read_once():
    network = build("mean_response")
    window = Window(list(range(1, 20)), 5)
    tokens, found = count_tokens(network, lambda: read_logits(network, [window, Window([7, 8, 9]), window]))
    assert tokens == 2 * 19  # two rows, not three
    assert found[0] == found[2] != found[1]


def test_padding_stays_below_what_passes_cost():
    network = build("last")
    windows = [Window([1 + i % 50] * (1 + i * i % 97)) for i in range(200)]
    distinct = {(tuple(window.ids)) for window in windows}
    lengths = sorted(map(len, distinct))
    passes = list(cut_passes(lengths, Settings(0, 4096, 32)))
    tokens, _ = count_tokens(network, lambda: read_logits(network, windows))
    assert sum(lengths) <= tokens <= sum(lengths) + 32 * len(passes)
    assert len(passes) < len(distinct) / 4


def test_passes_keep_to_the_budget():
    lengths = sorted([5, 5, 5, 40, 41, 60, 300, 300])
    cuts = list(cut_passes(lengths, Settings(0, 120, 32)))
    assert [place for start, stop in cuts for place in range(start, stop)] == list(range(8))
    assert all(stop - start == 1 or (stop - start) * lengths[stop - 1] <= 120 for start, stop in cuts)
    assert list(cut_passes([], Settings(0, 120, 32))) == []


def test_short_rows_share_a_pass():
    assert list(cut_passes([4] * 100, Settings(0, 4096, 32))) == [(0, 100)]


def test_what_is_kept_counts_towards_the_budget():
    assert len(list(cut_passes([10] * 8, Settings(0, 160, 32), before=30))) == 2


def test_nothing_is_kept_where_it_gains_nothing():
    network, settings = build("mean_response"), Settings(0, 4096, 32)
    assert find_groups(network, draw(4), settings) == []  # four questions, one answer each
    assert find_groups(network, [Window([1, 2, 3], 2), Window([1, 2, 4], 2)] * 20, settings) == []  # too short
    assert find_groups(network, draw(2, heads=1), settings) == []  # eight tokens once
    assert len(find_groups(network, draw(40), settings)) == 4
    assert find_groups(build("mean"), draw(40), settings) == []  # the question's own states count


def test_blocks_are_bounded():
    groups = [[Window([1] * 100, 99)] * 2 for _ in range(25)]
    blocks = list(form_blocks(groups))
    assert sum(map(len, blocks)) == 25
    assert all(len(block) * 99 <= 1024 for block in blocks)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param({"config": MistralConfig, "sliding_window": 4}, id="sliding window"),
        pytest.param({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, id="dynamic"),
    ],
)
def test_networks_that_cannot_go_on_are_read_whole(network):
    network = build("mean_response", **network)
    assert not can_share(network)
    windows = draw(30)
    alone = [network(torch.tensor([w.ids]), None, mask_of(w)).logits.item() for w in windows]
    assert read_logits(network, windows) == pytest.approx(alone, abs=1e-5)


def test_half_precision_may_share_too():
    assert can_share(build("last").to(torch.bfloat16))


def test_a_window_without_a_finite_logit_spoils_no_other():
    network = build("mean_response")
    with torch.no_grad():
        network.backbone.embed_tokens.weight[59] = float("nan")
    windows = [window for window in draw(30) if 59 not in window.ids]
    bad = Window([*windows[0].ids[: windows[0].head], 59, 5], windows[0].head)
    found = read_logits(network, [*windows, bad])
    assert found[:-1] == pytest.approx(read_logits(network, windows), abs=1e-5)
    assert found[-1] != found[-1]


def test_a_detector_scores_many_answers_as_it_scores_each(tiny_detector):
    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    roomy = dataclasses.replace(detector.config, text_form="prompt+response", normalise=True)
    detector = HarmDetector(detector.classifier, detector.tokenizer, roomy)
    pairs = [(question, answer) for question in QUESTIONS for answer in ANSWERS] * 3
    questions, answers = [question for question, _ in pairs], [answer for _, answer in pairs]
    together = detector.score(answers, questions)
    alone = [detector.score([answer], [question], batch_size=1)[0] for question, answer in pairs]
    assert together == pytest.approx(alone, abs=1e-5)
