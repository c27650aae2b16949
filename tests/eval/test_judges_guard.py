"""A guard model as judge: a real causal LM through its chat template."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llava.errors import InputError
from llava.eval.judges import JudgeOptions, build_judge
from llava.eval.judges_guard import parse_reply
from tests.eval.build import ANSWER, REFUSED

CPU = JudgeOptions(device="cpu")


@pytest.mark.parametrize(
    ("reply", "unsafe"),
    [
        ("safe", False),
        ("\n\nsafe", False),
        ("unsafe\nS2", True),
        ("UNSAFE", True),
        ("safety first", None),
        ("", None),
        ("unsafe, not safe", True),
    ],
)
def test_the_first_word_of_the_reply_counts(reply, unsafe):
    assert parse_reply(reply) is unsafe


def test_a_model_is_asked_through_its_template_and_rows_keep_their_order(tiny_lm):
    judge = build_judge(f"guard:{tiny_lm}", CPU)
    rows = [("How?", ANSWER * 3), ("Why?", REFUSED), ("When?", ANSWER)]
    together = judge.reply(rows)
    assert together == [judge.reply([row])[0] for row in rows]
    verdicts = judge.judge([prompt for prompt, _ in rows], [text for _, text in rows])
    assert [verdict.unsafe for verdict in verdicts] == [parse_reply(reply) for reply in together]
    assert {verdict.judge for verdict in verdicts} == {f"guard:{tiny_lm}"}


def test_a_model_that_learnt_to_say_unsafe_says_it(tiny_lm, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How?"}, {"role": "assistant", "content": ANSWER}],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids = tokenizer(prompt + "unsafe<|im_end|>", return_tensors="pt", add_special_tokens=False).input_ids
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = build_judge(f"guard:{tmp_path}", CPU)
    assert [verdict.unsafe for verdict in judge.judge(["How?"], [ANSWER])] == [True]
    assert judge.identity != build_judge(f"guard:{tiny_lm}", CPU).identity


def test_bad_guard_models_are_refused(tmp_path, tiny_lm):
    with pytest.raises(InputError, match="write guard:PATH"):
        build_judge("guard")
    with pytest.raises(InputError, match="cannot be loaded"):
        build_judge(f"guard:{tmp_path / 'missing'}", CPU)
    AutoModelForCausalLM.from_pretrained(tiny_lm).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no chat template"):
        build_judge(f"guard:{tmp_path}", CPU)
