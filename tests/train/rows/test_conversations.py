import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.data.images import open_image
from llava.data.training.conversations import Conversation, Turn, load_conversations
from llava.data.training.sources import parse_mixture
from llava.errors import InputError
from llava.model.answering.prompts import chat_template
from llava.model.loading import load_mllm, load_processor
from llava.train.rows.conversations import (
    ConversationEncoder,
    EncodedConversation,
    LlavaCollator,
    count_image_positions,
    encode_conversations,
    read_template,
)
from tests.train.conversations import picture_row, text_row, write_pictures

LLAVA_HF_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""In the form of llava-hf/llava-1.5-7b-hf's: no end mark behind an answer."""


@pytest.fixture(scope="module")
def processor(tiny_llava):
    return load_processor(str(tiny_llava), "tiny")


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    """The processor of a converted original checkpoint: Llama's tokenizer, v1 prompt, pictures padded to a square."""
    from llava.model.llava_checkpoints.convert import convert_checkpoint
    from tests.model.original_checkpoints import write_tower, write_v15

    folder = tmp_path_factory.mktemp("v15")
    convert_checkpoint(write_v15(folder / "original", write_tower(folder / "clip")), folder / "hf")
    return load_processor(str(folder / "hf"), "v15")


def conversation(*turns, images=()):
    """Turns alternate, the user's first; pictures stand in the first."""
    roles = ("user", "assistant")
    said = tuple(Turn(roles[i % 2], text, len(images) if i == 0 else 0) for i, text in enumerate(turns))
    return Conversation("1", said, tuple(images), "src", "rows.json row 1")


def learned(encoder, encoded):
    """The texts that the loss sees."""
    return [encoder.tokenizer.decode(encoded.input_ids[start:end]) for start, end in encoded.answers]


def test_the_loss_sees_answers_and_their_end_marks(processor):
    encoder = ConversationEncoder(processor, 512)
    encoded = encoder.encode(conversation("Question: bread?", "Mix flour.", "Then?", "Wait.", images=["a.png"]))
    assert learned(encoder, encoded) == ["Mix flour.<|im_end|>", "Wait.<|im_end|>"]
    text = encoder.tokenizer.decode(encoded.input_ids)
    assert text == (
        "<|im_start|>user\n<image>\nQuestion: bread?<|im_end|>\n<|im_start|>assistant\nMix flour.<|im_end|>\n"
        "<|im_start|>user\nThen?<|im_end|>\n<|im_start|>assistant\nWait.<|im_end|>"
    )
    assert encoded.length == len(encoded.input_ids) + 3  # a picture has four positions, one token


def test_golden_v1_prompt(sentencepiece):
    encoder = ConversationEncoder(sentencepiece, 512)
    encoded = encoder.encode(conversation("Which colour?", "It is red.", "Sure?", "Yes.", images=["a.png"]))
    # The space before an answer is part of its first token, and decoded by some versions of transformers alone, so the
    # tokens are compared. The tiny vocabulary has no Y; its byte stands for it.
    spoken = [encoder.tokenizer.convert_ids_to_tokens(encoded.input_ids[start:end]) for start, end in encoded.answers]
    assert ["".join(tokens) for tokens in spoken] == ["▁It▁is▁red.</s>", "▁<0x59>es.</s>"]
    text = encoder.tokenizer.decode(encoded.input_ids).removeprefix("<s>").replace(" \n", "\n").strip()
    assert text == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions. USER: <image>\nWhich colour? ASSISTANT: It is red.</s>"
        "USER: Sure? ASSISTANT: Yes.</s>"
    )


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (chat_template("v1", "<image>"), ["one<|im_end|>", "two<|im_end|>"]),
        (chat_template("llama_2", "<image>"), ["one <|im_end|>", "two <|im_end|>"]),
        (chat_template("v0", "<image>"), ["one###", "two###"]),
        (LLAVA_HF_TEMPLATE, ["one", "two<|im_end|>"]),
    ],
    ids=["v1", "llama_2", "v0", "llava-hf"],
)
def test_other_templates(processor, template, ends):
    """A template without end marks gets eos behind the row's last answer, where generation is to stop."""
    encoder = ConversationEncoder(processor, 512)
    encoder.form = read_template(processor.tokenizer, template)
    encoded = encoder.encode(conversation("Hi", "one", "More", "two", images=["a.png"]))
    assert [text.strip() for text in learned(encoder, encoded)] == ends


texts = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=40).filter(str.strip)
exchanges = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


def check_masks(processor, exchange):
    """What is learned is each answer and its end mark; what stands before is what inference reads."""
    encoder = ConversationEncoder(processor, 10_000)
    turns = [text.strip() for pair in exchange for text in pair]
    encoded = encoder.encode(conversation(*turns))
    eos = encoder.tokenizer.eos_token_id
    assert len(encoded.answers) == len(exchange)
    for start, end in encoded.answers:
        ids = encoded.input_ids[start:end].tolist()
        assert ids.count(eos) == 1
        assert ids[-1] == eos
    assert encoded.answers[-1][1] == len(encoded.input_ids)
    return encoder, encoded, turns


@settings(max_examples=60, deadline=None)
@given(exchange=exchanges)
def test_any_text_is_masked_exactly(processor, exchange):
    encoder, encoded, turns = check_masks(processor, exchange)
    from llava.model.answering.prompts import neutralise

    answers = [neutralise(text, encoder.reserved) + "<|im_end|>" for text in turns[1::2]]
    found = [
        encoder.tokenizer.decode(encoded.input_ids[s:e], clean_up_tokenization_spaces=False) for s, e in encoded.answers
    ]
    assert found == answers


@settings(max_examples=60, deadline=None)
@given(exchange=exchanges)
def test_any_text_is_masked_in_a_sentencepiece_prompt(sentencepiece, exchange):
    check_masks(sentencepiece, exchange)


@pytest.mark.parametrize("colour", ["red", None])
def test_training_reads_what_inference_reads(tiny_llava, tmp_path, colour):
    """Token by token and pixel by pixel, also where the text holds the template's own tokens."""
    folder = write_pictures(tmp_path)
    model = load_mllm(tiny_llava, device="cpu", dtype="float32")
    question = "Is <|im_end|> a  token? <s>"
    row = picture_row(0, colour, question) if colour else text_row(0, question, "Yes.")
    (folder / "rows.json").write_text(json.dumps([row]))
    (read,) = load_conversations(parse_mixture(str(folder / "rows.json")))
    encoder = ConversationEncoder(model.processor, 512)
    example = encoder.encode(read)
    batch = LlavaCollator(model.processor, encoder.image_positions)([example])
    picture = open_image(folder / f"{colour}.png") if colour else None
    inputs = model.encode([question], [picture] if colour else None)
    width = inputs["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :width], inputs["input_ids"])
    assert (batch["labels"][:, :width] == -100).all()
    assert batch["labels"][0, width] != -100
    assert ("pixel_values" in batch) is bool(colour)
    if colour:
        assert torch.equal(batch["pixel_values"], inputs["pixel_values"])


def test_padded_pictures_are_those_of_inference(sentencepiece, tmp_path):
    """`image_aspect_ratio: pad`: the processor of the checkpoint, not a copy of its settings."""
    write_pictures(tmp_path)
    encoder = ConversationEncoder(sentencepiece, 512)
    examples = [
        encoder.encode(conversation("Which colour?", "Red.", images=[str(tmp_path / f"{name}.png")]))
        for name in ("red", "blue")
    ]
    batch = LlavaCollator(sentencepiece, encoder.image_positions)(examples)
    pictures = [open_image(tmp_path / f"{name}.png") for name in ("red", "blue")]
    text = "<image>"
    expected = sentencepiece(text=[text, text], images=pictures, return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], expected)
    # A 40 x 30 picture on a square: its first row is the mean colour, not red.
    assert batch["pixel_values"][0, :, 0, 0].abs().max() < 0.02


def test_collator_literal(processor, tmp_path):
    write_pictures(tmp_path)
    image = processor.image_token_id
    row = conversation("q", "a")
    picture = EncodedConversation(
        np.array([5, image, 6, 7, 8], np.int32), [(3, 5)], 7, (str(tmp_path / "red.png"),), row
    )
    text = EncodedConversation(np.array([5, 6, 7, 8], np.int32), [(1, 2), (3, 4)], 4, (), row)
    batch = LlavaCollator(processor, image_positions=3)([picture, text])
    pad = processor.tokenizer.pad_token_id
    assert batch["input_ids"].tolist() == [[5, image, image, image, 6, 7, 8], [5, 6, 7, 8, pad, pad, pad]]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 4 + [0] * 3]
    assert batch["labels"].tolist() == [[-100] * 5 + [7, 8], [-100, 6, -100, 8, -100, -100, -100]]
    assert batch["pixel_values"].shape == (1, 3, 32, 32)
    assert "pixel_values" not in LlavaCollator(processor, 3)([text])


def test_image_positions_are_counted(processor):
    assert count_image_positions(processor) == 4


class TestCutting:
    def encode(self, processor, room, *turns, images=()):
        whole = ConversationEncoder(processor, 10_000).encode(conversation(*turns, images=images))
        return whole, ConversationEncoder(processor, room).encode(conversation(*turns, images=images))

    def test_a_row_is_cut_inside_its_last_answer_and_then_has_no_end_mark(self, processor):
        whole, _ = self.encode(processor, 512, "Hi", "bread and water and salt")
        _, cut = self.encode(processor, whole.length - 2, "Hi", "bread and water and salt")
        assert cut.cut
        assert (cut.length, cut.answers) == (whole.length - 2, [(whole.answers[0][0], whole.answers[0][1] - 2)])
        assert cut.input_ids.tolist() == whole.input_ids[:-2].tolist()

    def test_a_question_without_room_for_its_answer_goes(self, processor):
        whole, _ = self.encode(processor, 512, "Hi", "Yes", "And?", "No")
        _, cut = self.encode(processor, whole.answers[1][0], "Hi", "Yes", "And?", "No")
        assert cut.answers == whole.answers[:1]
        assert len(cut.input_ids) == whole.answers[0][1] == cut.length

    def test_a_picture_is_never_cut_in_two(self, processor):
        turns = (Turn("user", "Hi"), Turn("assistant", "Yes"), Turn("user", "It?", 1), Turn("assistant", "No"))
        row = Conversation("1", turns, ("a.png",), "src", "rows.json row 1")
        whole = ConversationEncoder(processor, 512).encode(row)
        place = whole.input_ids.tolist().index(processor.image_token_id)
        for room in range(whole.answers[0][1], place + 5):
            cut = ConversationEncoder(processor, room).encode(row)
            assert (cut.images, cut.answers) == ((), whole.answers[:1])

    def test_no_room_for_any_answer(self, processor, caplog):
        rows = [conversation("Hi " * 30, "Yes"), conversation("Hi", "Yes")]
        room = ConversationEncoder(processor, 512).encode(rows[1]).length
        encoder = ConversationEncoder(processor, room)
        assert encoder.encode(rows[0]) is None
        encoded = encode_conversations(encoder, rows)
        assert len(encoded) == 1
        assert "0 of 2 rows are longer" in caplog.text
        assert "1 more have no room for an answer and are left out" in caplog.text
        with pytest.raises(InputError, match="--max-length"):
            encode_conversations(encoder, rows[:1])


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | length }}{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}",  # counts turns
        "{% for m in messages %}{{ m['role'] }}{% endfor %}",  # leaves out the answer
        "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}",
    ],
)
def test_a_template_that_does_not_keep_turns_apart_is_refused(processor, template):
    with pytest.raises(InputError, match="chat template"):
        read_template(processor.tokenizer, template)


def test_a_row_that_holds_the_place_holder_is_refused(processor):
    with pytest.raises(InputError, match=r"rows.json row 1: .* unlike others"):
        ConversationEncoder(processor, 512).encode(conversation("Say \ue000answer\ue001", "No."))


def test_a_prompt_that_joins_its_answer_is_refused(processor):
    """Without an end to the prompt that the tokenizer keeps apart, training would read other tokens than inference."""
    joined = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'][0]['text'] + ' hel' }}{% else %}"
    joined += "{{ m['content'][0]['text'] + eos_token }}{% endif %}{% endfor %}"
    encoder = ConversationEncoder(processor, 512)
    encoder.form = read_template(processor.tokenizer, joined)
    with pytest.raises(InputError, match=r"rows.json row 1: this tokenizer joins"):
        encoder.encode(conversation("I cannot", "p with that request."))


def test_a_template_without_pictures_is_refused(processor):
    encoder = ConversationEncoder(processor, 512)
    encoder.form = read_template(processor.tokenizer, chat_template("v1", ""))
    with pytest.raises(InputError, match=r"rows.json row 1: .* leaves out pictures"):
        encoder.encode(conversation("Hi", "Yes", images=["a.png"]))


def test_a_damaged_picture_is_named(processor, tmp_path):
    bad = Path(tmp_path / "bad.png")
    bad.write_bytes(b"\x89PNG nonsense")
    example = ConversationEncoder(processor, 512).encode(conversation("Hi", "Yes", images=[str(bad)]))
    with pytest.raises(InputError, match=r"bad.png"):
        LlavaCollator(processor, 4)([example])
