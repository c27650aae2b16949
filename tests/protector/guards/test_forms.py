"""The forms of guard models: how each is known, and where its verdict stands."""

from __future__ import annotations

import pytest

from llava.errors import InputError
from llava.protector.guards.forms import FORMS, choose_form


@pytest.mark.parametrize(
    ("form", "reply", "word"),
    [
        ("llama_guard", "\n\nunsafe\nS2", "unsafe"),
        ("llama_guard", "safe", "safe"),
        ("llama_guard", "safety first", None),
        ("shield_gemma", "Yes", "Yes"),
        ("shield_gemma", "Nobody", None),
        ("wild_guard", "Harmful request: yes\nResponse refusal: yes\nHarmful response: no", "no"),
        ("wild_guard", "Harmful request: yes\nResponse refusal: yes", None),
        ("qwen3_guard", "Safety: Controversial\nCategories: Violent\nRefusal: No", "Controversial"),
        ("qwen3_guard", "Safety: Safe\nCategories: None\nRefusal: Yes", "Safe"),
        ("granite_guardian", "No", "No"),
        ("granite_guardian", "<think>\n</think>\n<score> yes </score>", "yes"),
        ("granite_guardian", "I know", None),
    ],
)
def test_the_verdict_is_found_in_the_reply(form, reply, word):
    match = FORMS[form].pattern.search(reply)
    assert (match.group(1) if match else None) == word


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("… <BEGIN UNSAFE CONTENT CATEGORIES> … Safety: Safe/Unsafe/Controversial …", "qwen3_guard"),
        ("… <BEGIN UNSAFE CONTENT CATEGORIES> …", "llama_guard"),
        ("{% if guideline is not defined %}…", "shield_gemma"),
        ("{% if guardian_config %}…", "granite_guardian"),
    ],
)
def test_a_form_is_known_by_its_chat_template(template, form):
    assert choose_form(template, None, "m").name == form


def test_a_name_wins_over_the_template_and_wild_guard_needs_none():
    assert choose_form("{{ guideline }}", "llama_guard", "m").name == "llama_guard"
    assert choose_form(None, "wild_guard", "m").name == "wild_guard"


@pytest.mark.parametrize(
    ("template", "name", "message"),
    [
        (None, None, "m has no chat template; write guard:FORM@PATH with one of .*wild_guard"),
        ("hello", None, "m has a chat template of no known guard; write guard:FORM@PATH"),
        ("hello", "nope", "guard form 'nope' is unknown"),
        (None, "llama_guard", "form llama_guard needs the checkpoint's own"),
    ],
)
def test_what_cannot_be_known_is_refused(template, name, message):
    with pytest.raises(InputError, match=message):
        choose_form(template, name, "m")
