"""Every setting that no run could use is refused with the flag's name."""

from __future__ import annotations

from dataclasses import fields

import pytest

from llava.errors import InputError
from llava.eval.run.settings import GenerationSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_processes": 0}, "--num-processes 0 must be an integer of at least 1"),
        ({"num_processes": -2}, "--num-processes -2"),
        ({"num_processes": True}, "--num-processes True"),
        ({"batch_size": 0}, "--batch-size 0 must be an integer of at least 1 or 'auto'"),
        ({"batch_size": "many"}, "--batch-size many"),
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"max_new_tokens": None}, "--max-new-tokens None"),
        ({"limit": 0}, "--limit 0"),
        ({"threads": 0}, "--threads 0"),
        ({"temperature": -0.1}, "--temperature -0.1"),
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"temperature": float("inf")}, "--temperature inf"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**63}, "--seed 9223372036854775808"),
        ({"dtype": "float8"}, "--dtype float8 is unknown"),
        ({"threshold": 1.5, "detector": "d"}, "--threshold 1.5 must be above 0 and at most 1"),
        ({"threshold": 0.5}, "--threshold does nothing without a detector"),
        ({"detoxifier": "x"}, "--detoxifier does nothing without a detector"),
        ({"image_types": []}, "--image-types names nothing"),
        ({"scenarios": ()}, "--scenarios names nothing"),
        ({"concurrency": 0}, "--concurrency 0"),
        ({"endpoint": "http://x/v1", "load_in_4bit": True}, "--load-in-4bit does nothing with --endpoint"),
        ({"model": " "}, "--model is empty"),
        ({"load_in_8bit": True, "load_in_4bit": True}, "--load-in-8bit and --load-in-4bit exclude each other"),
    ],
)
def test_bad_values_are_refused_by_flag(changes, message):
    with pytest.raises(InputError) as caught:
        GenerationSettings(**{"model": "m", "output": "o", **changes})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_settings_survive_their_json_form(tmp_path):
    settings = GenerationSettings("m", tmp_path, image_types=["SD", "TYPO"], scenarios="06-Fraud", batch_size=4)
    assert settings.image_types == ("SD", "TYPO")
    assert settings.scenarios == ("06-Fraud",)
    again = GenerationSettings.from_dict(settings.to_dict())
    assert again.to_dict() == settings.to_dict()


def test_an_unknown_key_is_an_error():
    with pytest.raises(InputError, match="setting 'temprature' is unknown"):
        GenerationSettings.from_dict({"model": "m", "output": "o", "temprature": 1})


def test_every_setting_has_a_default_but_model_and_output():
    settings = GenerationSettings("m", "o")
    assert {field.name for field in fields(settings)} == set(settings.to_dict())
    assert settings.temperature == 0
    assert settings.batch_size == "auto"
