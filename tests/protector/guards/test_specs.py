"""How guards are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import InputError
from llava.protector.guards.specs import GuardSpec, parse_spec


def shape(spec: GuardSpec):
    """Return what a specification says, without its text."""
    return (spec.kind, *map(shape, spec.members)) if spec.members else (spec.kind, spec.form, spec.path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("embedded", ("detector", None, "embedded")),
        (" /a, b/(c) ", ("detector", None, "/a, b/(c)")),
        ("./any(x)", ("detector", None, "./any(x)")),
        ("org/any", ("detector", None, "org/any")),
        ("guard:org/m", ("guard", None, "org/m")),
        ("guard:wild_guard@/a@b", ("guard", "wild_guard", "/a@b")),
        ("guard:nobody@/a", ("guard", None, "nobody@/a")),
        ("http://127.0.0.1:8000", ("remote", None, "http://127.0.0.1:8000")),
        ("any(a, https://host/v1)", ("any", ("detector", None, "a"), ("remote", None, "https://host/v1"))),
        ("any(embedded)", ("any", ("detector", None, "embedded"))),
        ("mean(a; guard:b)", ("mean", ("detector", None, "a"), ("guard", None, "b"))),
        (
            "any(embedded, all(guard:llama_guard@/x, mean(a,b)), c)",
            (
                "any",
                ("detector", None, "embedded"),
                ("all", ("guard", "llama_guard", "/x"), ("mean", ("detector", None, "a"), ("detector", None, "b"))),
                ("detector", None, "c"),
            ),
        ),
        ("any(\"/a, b\", 'guard:/c)')", ("any", ("detector", None, "/a, b"), ("guard", None, "/c)"))),
        ("any(/model (1), it's)", ("any", ("detector", None, "/model (1)"), ("detector", None, "it's"))),
        ("any('any(x)', y)", ("any", ("detector", None, "any(x)"), ("detector", None, "y"))),
    ],
)
def test_what_a_specification_says(text, expected):
    assert shape(parse_spec(text)) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("guard:", "names no model"),
        ("guard:wild_guard@", "names no model"),
        ("any()", "names no guard"),
        ("any( , )", "names no guard"),
        ("any(a, b", "lacks its closing bracket"),
        ("any(a, all(b)", "lacks its closing bracket"),
        ("http://", "is no address"),
        ("any(a, https://host:x/v1)", "is no address"),
    ],
)
def test_what_no_guard_is_named_by(text, told):
    with pytest.raises(InputError, match=told) as caught:
        parse_spec(text)
    assert len(str(caught.value)) <= 500


@given(st.text(alphabet="any(all,mean);'\" guard:@/x", max_size=60))
def test_any_text_is_taken_apart_or_refused(text):
    try:
        spec = parse_spec(text)
    except InputError:
        return
    assert spec.members or spec.path


def test_deep_nesting_is_refused():
    with pytest.raises(InputError, match="nested"):
        parse_spec("any(" * 5000 + "a" + ")" * 5000)
