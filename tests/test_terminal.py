"""What reaches the terminal from data is text: no markup, no control characters."""

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console

from llava.eval.report.tables import print_table
from llava.terminal import build_console, clean_text

PACKAGE = Path(__file__).resolve().parents[1] / "llava"
NAMES = ["[bold]x[/bold]", "a[/]b", "[red", "[link=http://x]y[/link]", ":smile:"]


def test_every_console_is_built_in_one_place():
    """Another console would read `[…]` in the names that it is given."""
    built = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Console", "get_console")
    ]
    assert built == ["terminal.py"]


@pytest.mark.parametrize("name", NAMES)
def test_a_console_prints_names_as_they_are(capsys, name):
    build_console().print(f"run {name}")
    build_console(stderr=True).print(name, style="yellow")
    printed = capsys.readouterr()
    assert printed.out == f"run {name}\n"
    assert printed.err == f"{name}\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_table_shows_names_as_they_are_on_any_console(name):
    stream = io.StringIO()
    console = Console(file=stream, width=200, no_color=True, emoji=False)
    print_table(name, name, [name, "n"], [[name, "1"]], console)
    assert stream.getvalue().count(name) == 4


def test_a_name_cannot_steer_the_terminal(capsys):
    print_table("", "", ["group"], [["\x1b[2Jgone\x07"]])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[2Jgone\\x07" in out
    assert clean_text("line\n\ttab é") == "line\n\ttab é"
