"""What the judge learns from: nothing that the detector learnt from, nothing that either is measured on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.data.training.made_answers import HARM_SENTENCES, read_sentences
from llava.data.training.made_answers import SENTENCES as ORDINARY_SENTENCES
from llava.data.training.splits import normalise_prompt
from llava.quality.detector_groups import JAILJUDGE
from llava.quality.judge.rows import DIASAFETY, load_measured
from llava.train.judge.rows import (
    EXCERPTS,
    MADE,
    MOST_DIASAFETY,
    PLAIN,
    SENTENCES,
    collect_judge_rows,
    list_detector_rows,
    make_rows,
    name_prompts,
    normalise_answer,
)

LABELLED = Path(__file__).resolve().parents[2] / "eval" / "labelled_answers.jsonl"


@pytest.fixture(scope="module")
def learnt(shared_data):
    return [keyed.row for keyed in collect_judge_rows(shared_data)]


@pytest.fixture(scope="module")
def found(learnt):
    """Rows of public data; the questions of made ones are everyday ones, which others ask too."""
    return [row for row in learnt if row.source not in (MADE, PLAIN)]


def name_rows(rows):
    return {(normalise_prompt(row.prompt), normalise_answer(row.response)) for row in rows}


def test_no_row_is_one_that_the_detector_learnt_from_and_none_of_data_shares_its_prompt(shared_data, learnt, found):
    detector = list_detector_rows(shared_data)
    assert len(detector) > 5000
    assert len(name_prompts(found) & name_prompts(detector)) == 0
    assert len(name_rows(learnt) & name_rows(detector)) == 0
    answers = {normalise_answer(row.response) for row in detector}
    whole = [row for row in found if row.source != EXCERPTS]
    assert len({normalise_answer(row.response) for row in whole} & answers) == 0


def test_no_row_is_one_that_is_measured_and_none_of_data_shares_its_prompt(shared_data, learnt, found):
    measured = load_measured(shared_data)
    assert JAILJUDGE in {keyed.row.source for keyed in measured}
    rows = [keyed.row for keyed in measured if keyed.row.source != JAILJUDGE]
    assert len(name_prompts(found) & name_prompts(rows)) == 0
    assert len(name_rows(learnt) & name_rows(keyed.row for keyed in measured)) == 0


def test_rows_of_both_labels_come_from_several_sources(learnt):
    assert {True, False} == {row.harmful for row in learnt}
    sources = {row.source for row in learnt}
    assert {MADE, DIASAFETY, "gptfuzz_responses", "alpaca_eval", "t0_short"} <= sources
    assert JAILJUDGE not in sources
    assert sum(row.source == DIASAFETY for row in learnt) == MOST_DIASAFETY


def test_made_rows_share_no_question_and_no_answer_with_the_labelled_ones():
    labelled = [json.loads(line) for line in LABELLED.read_text().splitlines()]
    made = [keyed.row for keyed in make_rows(30)]
    assert not {row["prompt"] for row in labelled} & {row.prompt for row in made}
    assert not {row["response"] for row in labelled} & {row.response for row in made}
    assert {row.source for row in made} == {MADE, PLAIN}


def test_no_sentence_is_one_of_the_detectors():
    def list_sentences(path):
        found = read_sentences(path)
        kinds = [parts for group in ("kinds", "answers", "ordinary") for parts in found.get(group, {}).values()]
        texts = {text for parts in kinds for name, lines in parts.items() if name != "q" for text in lines}
        return {text for text in texts if len(text.split()) > 5}  # "Yes." is nobody's own

    own = {text.removeprefix("{open}").casefold() for text in list_sentences(SENTENCES)}
    others = {text.casefold() for path in (ORDINARY_SENTENCES, HARM_SENTENCES) for text in list_sentences(path)}
    assert len(own) > 450
    assert not own & others
