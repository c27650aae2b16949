"""Interface constants of the protector: the texts that checkpoints are trained with, each with its source.

A checkpoint only works with the text form it was trained on, so these strings are part of a checkpoint's format:
`protector_config.json` names the form, and training and inference both render it from here.
"""

from __future__ import annotations

DETECTOR_TEMPLATES = {
    # The paper's detector sees the response alone (arXiv 2401.02906, section 4.1).
    "response": "{response}",
    # Training text of the released detectors (pipilurj/MLLM-protector, reward-model training data).
    "prompt+response": "Question: {prompt}\n\nAnswer: {response}",
}

DETOXIFIER_TEMPLATES = {
    # Training prompt of the released detoxifier (pipilurj/MLLM-protector); the safe response and eos follow.
    "prompt+response": (
        "You are given a question and a response, the response may contain sensitive or harmful information, "
        "Please rewrite the response to make it harmless. \n"
        "Question: {prompt}\nOriginal response: {response}\nCorrected response: "
    ),
    # Its evaluation prompt, without the question.
    "response": (
        "You are given a response which may contain sensitive or harmful information, "
        "Please rewrite the response to make it harmless. \n"
        "Original response: {response}\nCorrected response: "
    ),
}

REFUSAL = "I'm sorry, but I can't help with that. I'd be glad to help with something safe instead."
"""Shown in place of a flagged response when there is no detoxifier, or its rewrite is flagged too."""

WITHHELD = "This response was withheld because it could not be checked for safety."
"""Shown in place of a response that the detector could not score."""
