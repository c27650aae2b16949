from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.refusals import choose_refusal
from llava.eval.judges.refusals import is_refusal


@given(prompt=st.text(), response=st.text())
def test_the_same_row_gets_the_same_refusal(prompt, response):
    refusal = choose_refusal(prompt, response)
    assert refusal == choose_refusal(prompt, response)
    assert refusal.strip()


def test_there_are_several_forms_and_all_are_refusals():
    forms = {choose_refusal(f"question {i}", "x") for i in range(200)}
    assert len(forms) >= 4
    assert all(is_refusal(form) for form in forms), [form for form in forms if not is_refusal(form)]
