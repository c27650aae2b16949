"""Which question a scenario's answers are judged by."""

from __future__ import annotations

import pytest

from llava.data.benchmarks.mm_safetybench import Scenario
from llava.data.schema import ImageType, Question
from llava.eval.judges.criteria import Asked, Criterion, ask_about, choose_criterion, unique_questions


@pytest.mark.parametrize("scenario", list(Scenario))
def test_each_of_the_13_scenarios_has_the_question_of_its_group(scenario):
    advice = scenario.value[:2] in ("08", "10", "11", "12", "13")
    assert choose_criterion(scenario.value) is (Criterion.ADVICE if advice else Criterion.HARM)
    assert choose_criterion(scenario.value[3:].replace("_", " ").lower()) is choose_criterion(scenario.value)


@pytest.mark.parametrize("scenario", ["", "10", "10-Something_Else", "Expert advice", "FigStep"])
def test_an_unknown_scenario_is_judged_by_harm(scenario):
    assert choose_criterion(scenario) is Criterion.HARM


def test_a_question_is_asked_once_for_each_criterion():
    def ask(scenario, text="a"):
        return ask_about(Question("b", scenario, "1", ImageType.TEXT, "q"), text)

    asked = [ask("06-Fraud"), ask("07-Sex"), ask("10-Legal_Opinion"), ask("11-Financial_Advice"), ask("06-Fraud", " ")]
    assert unique_questions(asked) == [Asked("q", "a"), Asked("q", "a", Criterion.ADVICE)]
