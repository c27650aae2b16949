"""The command that measures what the embedded model reads: bad input; its figures are those of `llava.quality`."""

import pytest

from llava.train.vision.evaluate_reading import main


@pytest.mark.parametrize(("content", "word"), [(None, "does not exist"), ("vocabularly: 3\n", "vocabularly")])
def test_a_bad_recipe_is_one_line(tmp_path, capsys, content, word):
    recipe = tmp_path / "recipe.yaml"
    if content:
        recipe.write_text(content)
    assert main(["--config", str(recipe), "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --config {recipe}") or line.startswith(f"error: {recipe}")
    assert word in line
    assert not (tmp_path / "out").exists()
