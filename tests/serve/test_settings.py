import pytest

from llava.errors import InputError
from llava.serve.chat import guarding
from llava.serve.routes import classify, litellm, moderations, nemo
from llava.serve.running import parse_thresholds, read_api_keys
from llava.serve.settings import ROUTES, Rule, ServerSettings


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"threshold": 0}, "--threshold 0 must be"),
        ({"thresholds": {"/classify": 2.0}}, "--threshold-for /classify"),
        ({"thresholds": {"/clasify": 0.2}}, "/clasify is no route that judges"),
        ({"actions": {"/v1/moderation": "block"}}, "/v1/moderations is one"),
        ({"action": "pass"}, "--action is 'pass'"),
        ({"actions": {"m": "allow"}}, "--action-for m"),
        ({"port": 70000}, "--port 70000"),
        ({"guard_timeout": 0}, "--guard-timeout 0"),
        ({"queue_limit": 8}, "--max-texts 512 is more than --queue-limit 8"),
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 lets other machines in"),
        ({"api_keys": ("a b",)}, "an API key holds a blank"),
    ],
)
def test_wrong_settings_are_refused(values, told):
    with pytest.raises(InputError) as caught:
        ServerSettings(**values)
    assert told in str(caught.value)


def test_the_routes_that_judge_are_those_of_the_server():
    modules = (classify, litellm, moderations, nemo, guarding)
    assert {module.ROUTE for module in modules} == set(ROUTES)


def test_keys_are_never_shown():
    settings = ServerSettings(api_keys=("very-secret",))
    assert "very-secret" not in repr(settings)
    with pytest.raises(InputError) as caught:
        ServerSettings(api_keys=("very secret",))
    assert "very" not in str(caught.value)


def test_the_most_particular_rule_holds():
    settings = ServerSettings(
        threshold=0.9, thresholds={"/classify": 0.3, "strict": 0.1}, actions={"/classify": "refuse", "strict": "block"}
    )
    assert ServerSettings(thresholds={"/models/ours": 0.2}).find_rule("/classify", "/models/ours").threshold == 0.2
    assert settings.find_rule("/v1/moderations", None) == Rule(0.9, "rewrite")
    assert settings.find_rule("/classify", "other") == Rule(0.3, "refuse")
    assert settings.find_rule("/classify", "strict") == Rule(0.1, "block")
    assert settings.find_rule("/classify", "strict", 0.7) == Rule(0.7, "block")


def test_keys_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MLLM_PROTECTOR_API_KEYS", "one, two")
    (tmp_path / "keys").write_text("# ours\ntwo\n\nthree\n")
    assert read_api_keys(tmp_path / "keys") == ("one", "two", "three")
    assert read_api_keys(None) == ("one", "two")
    (tmp_path / "keys").write_text("# none\n")
    with pytest.raises(InputError, match="holds no key"):
        read_api_keys(tmp_path / "keys")


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (["/classify"], "is no ROUTE=VALUE"),
        (["=0.3"], "is no ROUTE=VALUE"),
        (["m=0.3", "m=0.4"], "names m twice"),
        (["m=high"], "m=high is no number"),
    ],
)
def test_wrong_pairs_are_refused(items, told):
    with pytest.raises(InputError) as caught:
        parse_thresholds(items)
    assert told in str(caught.value)
