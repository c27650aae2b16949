"""A stream's score is that of the text so far, however the text is cut."""

import base64
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.protector.streaming.detector import DetectorStream
from llava.protector.streaming.opening import RescoringStream
from tests.protector.streaming.detectors import HARMLESS, cut, vary

HIDDEN = base64.b64encode(b"how to bake bread at home, with flour and water").decode()
WORDS = [
    *(
        "Mix",
        "flour,",
        "water",
        "and",
        "yeast.",
        "explosive",
        "naïve",
        "😀",
        "👩‍👩‍👧",
        "水を沸かす",
        "e\u0301",
        "\n\n",
        "  ",
    ),
    *("h o w  t o", "b4ke", "br34d", "w1th", "yеаst", "\u200b", "<|im_end|>", "ｗｉｄｅ", "&#98;read", HIDDEN),
]
FORMS = [
    {"pooling": "last"},
    {"pooling": "mean", "positive_label": "safe"},
    {"pooling": "mean", "text_form": "response"},
    {"pooling": "mean_response", "temperature": 0.5},
    {"pooling": "mean_response", "stretches": (3, 8), "stretch_margin": 0.3},
    {"pooling": "mean_response", "stretches": (6,), "normalise": True},
    {"pooling": "last", "normalise": True, "text_form": "response"},
]


def same(one, other):
    return one == pytest.approx(other, abs=1e-4, nan_ok=True)


@settings(max_examples=40)
@given(
    st.sampled_from(FORMS),
    st.sampled_from([12, 40, 300]),
    st.sampled_from(["", "Why?", "How do I bake bread at home? " * 3]),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=14),
    st.lists(st.integers(1, 30), min_size=1, max_size=3),
)
def test_every_prefix_has_the_score_of_the_whole_text_detector(detector, form, length, prompt, words, sizes):
    changed = vary(detector, **{"max_length": length, "stretches": (), **form})
    text = " ".join(words)
    stream = changed.open_stream(prompt)
    assert isinstance(stream, DetectorStream)
    prefixes, scores = [], []
    for piece in cut(text, sizes):
        scores.append(stream.add(piece))
        prefixes.append(stream.text)
        assert stream.tokens >= 0
    expected = changed.score(prefixes, [prompt] * len(prefixes))
    assert same(scores, expected)
    assert prefixes[-1] == text
    found = [(prefix, known) for prefix in prefixes if (known := stream.score_prefix(len(prefix)))]
    assert same([known.score for _, known in found], [expected[prefixes.index(prefix)] for prefix, _ in found])


def test_each_token_is_read_once(detector):
    """What the network is given adds up to the text, but for the words that were cut."""
    changed = vary(detector, pooling="mean_response", max_length=300)
    read = []
    changed.classifier.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    stream = changed.open_stream("Why?")
    assert isinstance(stream, DetectorStream)
    read.clear()
    for piece in cut(HARMLESS * 5, [len(HARMLESS)]):
        stream.add(piece)
    (state,) = stream.states.values()
    assert len(read) == 5
    assert len(state.ids) <= sum(read) <= len(state.ids) + 5
    assert detector.classifier.backbone._forward_pre_hooks == {}


def test_a_long_answer_is_read_in_windows_whose_caches_are_given_back(detector):
    changed = vary(detector, pooling="mean_response", max_length=24)
    stream = changed.open_stream("")
    assert isinstance(stream, DetectorStream)
    scores = [stream.add(HARMLESS) for _ in range(12)]
    assert same(scores, changed.score([HARMLESS * (i + 1) for i in range(12)]))
    assert len(stream.states) > 8
    assert sum(state.cache is not None for state in stream.states.values()) == 2
    # A full window that changes after all is read again.
    first = next(iter(stream.states.values()))
    first.ids = [*first.ids[:-1], 3]
    assert same(stream.add("Bread."), changed.score([HARMLESS * 12 + "Bread."])[0])


def test_a_hidden_text_is_read_once_it_can_be_decoded(detector):
    reader = vary(detector, normalise=True, max_length=300)
    stream = reader.open_stream("Why?")
    assert isinstance(stream, DetectorStream)
    text = f"Decode this: {HIDDEN} Then wait."
    counts = []
    for i, piece in enumerate(cut(text, [7])):
        assert same(stream.add(piece), reader.score([text[: 7 * (i + 1)]], ["Why?"])[0])
        counts.append(len({number for number, _ in stream.states}))
    assert counts[0] == 1
    assert max(counts) > 1


def test_nothing_to_score_is_nan_and_no_harm(detector):
    stream = detector.open_stream("Why?")
    assert [math.isnan(stream.add(piece)) for piece in ("", " ", "\n", "bread")] == [True, True, True, False]
    assert same(stream.add("."), detector.score([" \nbread."], ["Why?"])[0])
    assert math.isnan(stream.score_prefix(2).score)


def test_a_prefix_that_reads_otherwise_has_no_score(detector):
    stream = detector.open_stream("")
    stream.add("Answer the question politely.")
    ids = detector.tokenizer("Answer")["input_ids"]
    assert stream.score_prefix(6).tokens == len(ids)
    cuts = [length for length in range(1, 29) if stream.score_prefix(length) is None]
    assert cuts  # inside words
    for length in set(range(1, 29)) - set(cuts):
        assert same(stream.score_prefix(length).score, detector.score([stream.text[:length]])[0])


def test_a_failed_pass_leaves_nothing_half_done(detector):
    changed = vary(detector, pooling="mean")
    stream = changed.open_stream("Why?")
    stream.add("Mix flour")
    layer = changed.classifier.backbone.layers[1]

    def fail(*_):
        raise RuntimeError("lost")

    handle = layer.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="lost"):
        stream.add(" and water")
    handle.remove()
    assert same(stream.add(", then wait."), changed.score(["Mix flour and water, then wait."], ["Why?"])[0])


def test_half_precision_differs_by_rounding_alone(tiny_detector):
    from llava import HarmDetector
    from llava.protector.streaming.protected import TOLERANCE

    half = HarmDetector.from_pretrained(tiny_detector, device="cpu", dtype="bfloat16")
    stream = half.open_stream("Why?")
    assert isinstance(stream, DetectorStream)
    scores = [stream.add(HARMLESS) for _ in range(4)]
    assert scores == pytest.approx(half.score([HARMLESS * (i + 1) for i in range(4)], ["Why?"] * 4), abs=10 * TOLERANCE)


def test_networks_that_cannot_go_on_are_read_anew(tiny_lm, tmp_path):
    from llava import HarmDetector
    from tests.tiny_adapters import build_detector_adapter

    folder = build_detector_adapter(tmp_path / "detector", tiny_lm)
    dynamic = HarmDetector.from_pretrained(folder, device="cpu", dtype="float32")
    dynamic.classifier.backbone.rotary_emb.rope_type = "dynamic"
    stream = dynamic.open_stream("Why?")
    assert isinstance(stream, RescoringStream)
    assert stream.add(HARMLESS) == dynamic.score([HARMLESS], ["Why?"])[0]
