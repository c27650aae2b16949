"""Values of every option of every command: refused in one line, or within bounds; no model is loaded."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from llava.bounds import BOUNDS
from llava.cli.app import app, main
from llava.cli.command import OWN_FORM
from llava.cli.config import parse_batch_size, parse_prices, split_list
from llava.errors import LONGEST_MESSAGE
from llava.eval.run.settings import GenerationSettings
from tests.fuzz.support import check_parser, fuzz, list_tree, scalars

GROUP: Any = get_command(app)
COMMANDS = GROUP.commands
TRAINING = {name for name in COMMANDS if name.startswith("train-")}
OPTIONS = [
    (command, f"--{name.replace('_', '-')}")
    for command in sorted(set(COMMANDS) - TRAINING - {"doctor", "quickstart"})
    for name in get_type_hints(inspect.unwrap(COMMANDS[command].callback))
    if name not in ("return", "folder", "folders", "source") and (command, name) != ("convert", "output")
]
"""Every option of the commands that fail before they load a model, when that is not there."""
WORDS = (
    st.sampled_from(
        ["", " ", "0", "-1", "1", "²", "٣", "nan", "inf", "-inf", "1e999", "1e-320", "0x10", "1_000", "auto", "true"]
    )
    | st.sampled_from(
        ["9" * 5000, "none", "--", "-", "=", ",", ",,", "/dev/null", "/proc/x/y", "..", "\x1b[2J", "[red]"]
    )
    | st.integers().map(str)
    | st.floats().map(str)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Relative paths lead here, and nothing is looked up on the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def run_line(capsys: pytest.CaptureFixture[str], words: list[str]) -> int:
    """Run a command and assert that what it refuses takes one printable line."""
    code = main(words)
    errors = [line for line in capsys.readouterr().err.split("\n") if line]
    assert code in (0, 1, 2)
    if code:
        assert errors, words
        assert errors[-1].startswith("error: ")
        assert len(errors[-1]) <= LONGEST_MESSAGE + len("error:  (see --help)")
        assert errors[-1].isprintable()
        assert not any("Traceback" in line for line in errors)
    return code


def complete(command: str, folder: Path) -> list[str]:
    """Return words without which the command would refuse any other: each names something that is not there."""
    gone = str(folder / "gone")
    return {
        "generate": ["--model", gone, "--output", str(folder / "out")],
        "score": [gone],
        "report": [gone],
        "compare": [gone, gone],
        "detect": ["--input", gone, "--output", str(folder / "out")],
        "detoxify": ["--input", gone, "--output", str(folder / "out")],
        "merge": ["--base", gone, "--adapter", gone, "--output", str(folder / "out")],
        "convert": [gone, str(folder / "out")],
        "guard-bench": ["--input", gone, "--output", str(folder / "out")],
        "calibrate": ["--data", gone, "--detector", gone, "--output", str(folder / "out")],
        "export": ["--detector", gone, "--output", str(folder / "out")],
        "chat": ["--detector", gone],
        "serve": ["--detector", gone, "--port", "0"],
    }.get(command, [])


@fuzz
@given(option=st.sampled_from(OPTIONS), value=WORDS, joined=st.booleans())
def test_any_value_of_any_option(capsys, tmp_path, option, value, joined):
    command, flag = option
    before = list_tree(tmp_path)
    words = [f"{flag}={value}"] if joined else [flag, value]
    code = run_line(capsys, [command, *complete(command, tmp_path), *words])
    assert code != 0 or value in ("--help", "-h")
    assert list_tree(tmp_path) == before


@fuzz
@given(command=st.sampled_from(sorted(COMMANDS)), words=st.lists(WORDS, max_size=3), option=st.sampled_from(OPTIONS))
def test_parsed_values_are_within_their_bounds(tmp_path, command, words, option):
    line = [*complete(command, tmp_path), option[1], *words]

    def parse() -> dict[str, Any] | None:
        try:
            return COMMANDS[command].make_context(command, line).params
        except Exception as error:
            # Usage errors are Typer's own, and `main` prints them.
            if hasattr(error, "format_message") or type(error).__name__ == "Exit":
                return None
            raise

    def check(values: dict[str, Any] | None) -> None:
        for name, value in (values or {}).items():
            if name in BOUNDS and name not in OWN_FORM and value is not None:
                number: Any = parse_batch_size(value) if isinstance(value, str) else value
                assert number == BOUNDS[name].special or BOUNDS[name].least <= number <= BOUNDS[name].most
            assert "\0" not in str(value)

    check_parser(parse, check)


@fuzz
@given(text=WORDS)
def test_prices_and_lists(text):
    def check(prices: tuple[float, float] | None) -> None:
        assert prices is not None
        assert all(price >= 0 and math.isfinite(price) for price in prices)

    check_parser(lambda: parse_prices(text), check)
    assert all(item and item == item.strip() for item in split_list([text]) or ())


@fuzz
@given(name=st.sampled_from([each for each in BOUNDS if each in get_type_hints(GenerationSettings)]), value=scalars)
def test_settings_of_the_python_interface(name, value):
    def check(settings: GenerationSettings) -> None:
        number = getattr(settings, name)
        if number is None:
            assert type(None) in get_args(get_type_hints(GenerationSettings)[name])
        else:
            assert number == BOUNDS[name].special or BOUNDS[name].least <= number <= BOUNDS[name].most

    check_parser(lambda: GenerationSettings("m", "o", detector="d", **{name: value}), check)


@fuzz
@given(
    content=st.dictionaries(
        st.sampled_from([flag[2:] for _, flag in OPTIONS]) | st.text(max_size=9), scalars, max_size=3
    )
)
def test_option_files(capsys, tmp_path, content):
    import yaml

    path = tmp_path / "options.yaml"
    text = yaml.safe_dump(content, allow_unicode=False)
    path.write_text(text)
    for command in ("detect", "score"):
        assert run_line(capsys, [command, *complete(command, tmp_path), "--config", str(path)]) != 0
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
