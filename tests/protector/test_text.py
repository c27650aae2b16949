import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.protector.config import ProtectorConfig
from llava.protector.text import (
    HEAD_SHARE,
    encode_detoxifier_prompt,
    encode_readings,
    encode_windows,
    locate_characters,
    render_detector_text,
    render_detoxifier_prompt,
)
from tests.tiny import build_tokenizer

TOKENIZER = build_tokenizer()
FORMS = ("response", "prompt+response")


def test_golden_texts_of_the_released_checkpoints():
    config = ProtectorConfig(kind="detoxifier")
    assert render_detoxifier_prompt(config, "Why?", "Because.") == (
        "You are given a question and a response, the response may contain sensitive or harmful information, Please "
        "rewrite the response to make it harmless. \nQuestion: Why?\nOriginal response: Because.\n"
        "Corrected response: "
    )
    assert render_detector_text(ProtectorConfig(kind="detector"), "Why?", "Because.")[0] == (
        "Question: Why?\n\nAnswer: Because."
    )
    assert render_detector_text(ProtectorConfig(kind="detector", text_form="response"), "Why?", "So.") == ("So.", 0)


def test_braces_in_user_text_are_plain_text():
    config = ProtectorConfig(kind="detoxifier")
    text = render_detoxifier_prompt(config, "{response}", "{prompt}")
    assert "Question: {response}\nOriginal response: {prompt}\n" in text


@pytest.mark.parametrize("form", FORMS)
def test_short_text_is_one_window_of_the_plain_tokenisation(form):
    config = ProtectorConfig(kind="detector", text_form=form)
    text, start = render_detector_text(config, "Why?", "Because.")
    (window,) = encode_windows(TOKENIZER, config, "Why?", "Because.")
    assert window.ids == TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(window.ids[window.head :]).strip() == "Because."
    assert (window.head > 0) is (start > 0)


@pytest.mark.parametrize("response", ["", "  \n"])
@pytest.mark.parametrize("form", FORMS)
def test_empty_response_has_no_window(form, response):
    assert encode_windows(TOKENIZER, ProtectorConfig(kind="detector", text_form=form), "Why?", response) == []


@settings(max_examples=60)
@given(
    prompt=st.text(max_size=80),
    response=st.text(min_size=1, max_size=600).filter(str.strip),
    form=st.sampled_from(FORMS),
    max_length=st.integers(8, 64),
)
def test_windows_cover_the_whole_response_within_the_limit(prompt, response, form, max_length):
    config = ProtectorConfig(kind="detector", text_form=form, max_length=max_length)
    encoded = encode_windows(TOKENIZER, config, prompt, response)
    windows = [window.ids for window in encoded]
    text, start = render_detector_text(config, prompt, response)
    encoding = TOKENIZER(text, return_offsets_mapping=True)
    body = [
        token for token, (_, end) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True) if end > start
    ]
    assert all(0 < len(window) <= max_length for window in windows)
    joined = windows[0]
    if len(windows) > 1:
        head = len(encoding["input_ids"]) - len(body)
        head = min(head, max(1, max_length // HEAD_SHARE))
        assert {window.head for window in encoded} == {head}
        size = max_length - head
        step = size - size // 8
        joined = windows[0][head : head + step]
        for window in windows[1:]:
            assert window[:head] == windows[0][:head]
            joined = joined + (window[head : head + step] if window is not windows[-1] else window[head:])
        assert joined == body
    else:
        assert joined[-len(body) :] == body


def test_of_a_long_question_the_end_is_read():
    """Half of the window, whether the text would fit or not: what was asked last, and the words before the answer."""
    config = ProtectorConfig(kind="detector", text_form="prompt+response", max_length=64)
    asked = "Tell me of the sea. " * 9 + "How do I bake bread?"
    (short,) = encode_windows(TOKENIZER, config, asked, "So.")
    windows = encode_windows(TOKENIZER, config, asked, "So it is. " * 40)
    whole = TOKENIZER(render_detector_text(config, asked, "So.")[0])["input_ids"]
    room = config.max_length // HEAD_SHARE
    assert len(windows) > 1
    assert {window.head for window in (short, *windows)} == {room}
    for window in (short, *windows):
        assert window.ids[0] == whole[0]
        assert window.ids[1:room] == short.ids[1:room]
        assert TOKENIZER.decode(window.ids[1:room]).rstrip().endswith("bake bread?\n\nAnswer:")


@settings(max_examples=60)
@given(prompt=st.text(max_size=200), response=st.text(max_size=400), max_tokens=st.integers(96, 200))
def test_detoxifier_prompt_is_cut_at_the_response(prompt, response, max_tokens):
    config = ProtectorConfig(kind="detoxifier")
    ids, cut = encode_detoxifier_prompt(TOKENIZER, config, prompt, response, max_tokens)
    assert len(ids) <= max_tokens
    text = TOKENIZER.decode(ids)
    assert text.endswith("\nCorrected response: ")
    assert text.startswith("You are given a question")
    if not cut:
        assert ids == TOKENIZER(render_detoxifier_prompt(config, prompt, response))["input_ids"]


CONTROL = st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<s>", "<unk>", "bread", " ", "<", "|>"]), max_size=9)


@given(CONTROL.map("".join), CONTROL.map("".join), st.sampled_from(FORMS))
def test_control_tokens_are_never_read_out_of_a_text(prompt, response, form):
    config = ProtectorConfig(kind="detector", text_form=form)
    for window in encode_windows(TOKENIZER, config, prompt, response):
        assert not set(window.ids) & set(TOKENIZER.all_special_ids)
        text, _ = render_detector_text(config, prompt, response)
        assert TOKENIZER.decode(window.ids) == text


@pytest.mark.parametrize("max_tokens", [200, 1000])
@given(prompt=CONTROL.map("".join), response=CONTROL.map(lambda parts: "".join(parts) * 9))
def test_nor_by_the_detoxifier(prompt, response, max_tokens):
    config = ProtectorConfig(kind="detoxifier")
    ids, _ = encode_detoxifier_prompt(TOKENIZER, config, prompt, response, max_tokens)
    assert not set(ids) & set(TOKENIZER.all_special_ids)


def test_a_tokenizer_that_is_used_otherwise_afterwards_reads_control_tokens_again():
    encode_windows(TOKENIZER, ProtectorConfig(kind="detector"), "<|im_end|>", "<|im_end|>")
    assert TOKENIZER("<|im_end|>")["input_ids"] == [TOKENIZER.eos_token_id]


def test_readings_are_the_plain_windows_unless_the_config_asks_for_more():
    config = ProtectorConfig(kind="detector")
    for response in ("Boil the w\u200bater.", "aG93IHRvIGJha2UgYnJlYWQ="):
        assert encode_readings(TOKENIZER, config, "Why?", response) == encode_windows(
            TOKENIZER, config, "Why?", response
        )


def test_a_detector_that_normalises_reads_the_plain_text_and_what_is_hidden():
    config = ProtectorConfig(kind="detector", normalise=True)
    plain = ProtectorConfig(kind="detector")
    assert encode_readings(TOKENIZER, config, "W\u200bhy?", "Boil the w\u200bater.") == encode_windows(
        TOKENIZER, plain, "Why?", "Boil the water."
    )
    _, hidden = encode_readings(TOKENIZER, config, "Why?", "Read aG93IHRvIGJha2UgYnJlYWQ=")
    assert hidden == encode_windows(TOKENIZER, plain, "Why?", "how to bake bread")[0]


@pytest.mark.parametrize("response", ["", " ", "\u200b\u200d", "\ufeff \u00ad"])
def test_a_text_of_nothing_that_is_seen_has_no_window(response):
    assert encode_readings(TOKENIZER, ProtectorConfig(kind="detector", normalise=True), "Why?", response) == []


def test_places_in_a_text_with_blanks_put_in_and_signs_left_out():
    assert locate_characters("x < y", "x§<y") == [0, 1, 1, 3, 3, 4]
