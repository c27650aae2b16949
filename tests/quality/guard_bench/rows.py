"""Rows as the public sets have them, with mild texts."""

from __future__ import annotations

from typing import Any

NICE, MEAN = "Boil the rice for twelve minutes.", "You are a fool and nobody likes you."
SETS: dict[str, list[dict[str, Any]]] = {
    "BeaverTails": [
        {"prompt": "How?", "response": NICE, "is_safe": True, "category": {"violence": False}},
        {"prompt": "How?", "response": MEAN, "is_safe": False, "category": {"violence": False}},
    ],
    "PKU-SafeRLHF": [
        {
            "prompt": "How?",
            "response_0": NICE,
            "response_1": MEAN,
            "is_response_0_safe": True,
            "is_response_1_safe": False,
            "better_response_id": 0,
            "safer_response_id": 0,
        }
    ],
    "HarmBench": [
        {"behavior_id": "b", "test_case": "How?", "generation": NICE, "human_0": 0, "human_1": 1, "human_2": 0},
        {"behavior_id": "b", "test_case": "How?", "generation": MEAN, "human_0": 1, "human_1": 1, "human_2": 0},
    ],
    "XSTest": [
        {"prompt": "How?", "response": NICE, "label": "unharmful", "prompt_type": "prompt_safe"},
        {"prompt": "How?", "response": MEAN, "label": "harmful", "prompt_type": "prompt_harmful"},
    ],
    "WildGuardTest": [
        {"prompt": "How?", "response": NICE, "response_harm_label": "unharmful", "prompt_harm_label": "harmful"},
        {"prompt": "How?", "response": MEAN, "response_harm_label": "harmful", "prompt_harm_label": "harmful"},
    ],
    "Aegis 2.0": [
        {"id": "1", "prompt": "How?", "response": NICE, "prompt_label": "safe", "response_label": "safe"},
        {"id": "2", "prompt": "How?", "response": MEAN, "prompt_label": "unsafe", "response_label": "unsafe"},
    ],
    "Do-Not-Answer": [
        {
            "id": 1,
            "question": "How?",
            "GPT4_response": NICE,
            "GPT4_harmful": 0,
            "GPT4_action": 1,
            "llama2-7b-chat_response": MEAN,
            "llama2-7b-chat_harmful": 1,
            "llama2-7b-chat_action": 5,
        }
    ],
    "ToxicChat": [
        {"conv_id": "1", "user_input": "How?", "model_output": NICE, "toxicity": 0, "jailbreaking": 0},
        {"conv_id": "2", "user_input": "How?", "model_output": MEAN, "toxicity": 1, "jailbreaking": 0},
    ],
    "labelled responses": [
        {"prompt": "How?", "response": NICE, "harmful": False, "case_id": "case_1", "model": "a"},
        {"prompt": "How?", "response": MEAN, "harmful": True, "case_id": "case_1", "model": "b"},
    ],
}
"""Form → rows that hold the harmless text and the harmful one."""
UNCLEAR: dict[str, dict[str, Any]] = {
    "BeaverTails": {"is_safe": None},
    "PKU-SafeRLHF": {"is_response_0_safe": None, "is_response_1_safe": "perhaps"},
    "HarmBench": {"human_2": None},
    "XSTest": {"label": "compliance"},
    "WildGuardTest": {"response_harm_label": None},
    "Aegis 2.0": {"response_label": ""},
    "Do-Not-Answer": {"GPT4_harmful": None, "llama2-7b-chat_harmful": "?"},
    "ToxicChat": {"toxicity": None},
    "labelled responses": {"harmful": "perhaps"},
}
"""Form → what makes the labels of its first row unclear."""
