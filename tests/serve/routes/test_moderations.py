from __future__ import annotations

import openai
import pytest

from llava.serve.routes.moderations import SCORED, UNSCORED
from tests.serve.support import HARMFUL, SAFE, serve_guard

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.fixture(scope="module")
def live():
    with serve_guard(max_texts=4, max_images=2) as found:
        yield found


def test_the_official_client_reads_it(live):
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="any")
    answer = client.moderations.create(input=[SAFE, HARMFUL], model="omni-moderation-latest")
    assert [result.flagged for result in answer.results] == [False, True]
    assert answer.results[1].categories.violence is True
    assert answer.results[1].category_scores.illicit == 0.9
    assert answer.results[1].category_applied_input_types.hate == ["text"]
    assert answer.id.startswith("modr-")
    with pytest.raises(openai.BadRequestError):
        client.moderations.create(input=[])


def test_one_score_stands_under_the_categories_that_are_documented(live):
    (result,) = live.http.post("/v1/moderations", json={"input": HARMFUL}).json()["results"]
    for name in (*SCORED, "harmful"):
        assert result["categories"][name] is True
        assert result["category_scores"][name] == 0.9
        assert result["category_applied_input_types"][name] == ["text"]
    for name in UNSCORED:
        assert result["categories"][name] is False
        assert result["category_scores"][name] == 0.0
        assert result["category_applied_input_types"][name] == []


def test_parts_are_one_input_and_images_are_said_not_to_be_inspected(live):
    parts = [{"type": "text", "text": SAFE}, IMAGE, {"type": "text", "text": HARMFUL}]
    answer = live.http.post("/v1/moderations", json={"input": parts})
    assert answer.headers["x-guard-not-inspected"] == "image"
    (result,) = answer.json()["results"]
    assert result["flagged"]
    assert result["mllm_protector"] == {"inspected": ["text"], "not_inspected": ["image"]}
    assert "image" not in str(result["category_applied_input_types"])


def test_harm_that_is_split_over_parts_is_seen():
    with serve_guard(SplitGuard()) as live:
        parts = [{"type": "text", "text": "poi"}, {"type": "text", "text": "son"}]
        assert live.http.post("/v1/moderations", json={"input": parts}).json()["results"][0]["flagged"]


class SplitGuard:
    """A guard that reads over the ends of lines."""

    name, identity, threshold = "split", "split@0.5", 0.5

    def score(self, responses, prompts):
        return [0.9 if "poison" in response.replace("\n", "") else 0.1 for response in responses]


@pytest.mark.parametrize("parts", [[IMAGE], [IMAGE, {"type": "text", "text": " "}]])
def test_images_alone_are_refused_and_not_passed(live, parts):
    answer = live.http.post("/v1/moderations", json={"input": parts})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "nothing_to_inspect"


def test_a_blank_text_is_harmless(live):
    results = live.http.post("/v1/moderations", json={"input": ["", HARMFUL, " "]}).json()["results"]
    assert [result["flagged"] for result in results] == [False, True, False]


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (None, 400),
        ([], 400),
        (5, 400),
        ([5], 400),
        ([["a"]], 400),
        ([{"type": "text"}], 400),
        ([{"text": "x"}], 400),
        ([SAFE, {"type": "text", "text": HARMFUL}], 200),
        ([SAFE] * 5, 413),
        ([""] * 5, 413),
        ([IMAGE] * 3, 413),
    ],
)
def test_other_inputs_have_a_clean_answer(live, value, status):
    answer = live.http.post("/v1/moderations", json={"input": value})
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["message"]
