"""What `llava/train/llava.py` does with its input before it trains: dry runs, and refusals in one line."""

import pytest

from llava.train.llava import main
from tests.train.conversations import flags, write_conversations


@pytest.fixture
def data(tmp_path):
    return write_conversations(tmp_path / "data")


def test_dry_run_writes_nothing(tiny_llava, data, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(flags(tiny_llava, data, output, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert "training: 24 rows, 16 with pictures (67%), 8 text only" in shown
    assert not output.exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_damaged_picture_stops_the_run_in_one_line(tiny_llava, data, tmp_path, capsys, workers):
    (data.parent / "blue.png").write_bytes(b"\x89PNG nonsense")
    assert main(flags(tiny_llava, data, tmp_path / "out", "--dataloader-num-workers", workers)) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: image {data.parent / 'blue.png'} is")


def test_dry_run_opens_every_picture(tiny_llava, data, tmp_path, capsys):
    (data.parent / "blue.png").write_bytes(b"\x89PNG nonsense")
    assert main(flags(tiny_llava, data, tmp_path / "out", "--dry-run")) == 2
    assert "blue.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train-data", "absent.json"], "absent.json does not exist"),
        (["--train-data", ""], "--train-data is missing"),
        (["--image-folder", "nowhere"], "does not exist; check the row and --image-folder"),
        (["--max-length", "4"], "--max-length 4 leaves no room"),
        (["--max-length", "0"], "--max-length is 0"),
        (["--stage", "pretrain", "--lora"], "--stage pretrain trains the projector alone"),
        (["--load-in-4bit"], "--load-in-4bit freezes the language model"),
        (["--lora", "--train-vision-tower"], "--train-vision-tower goes with full fine-tuning"),
        (["--prompt-version", "v9"], "--prompt-version is v9"),
        (["--base", "nowhere/"], "nowhere/"),
        (["--lora", "--lora-target-modules", "out_proj"], "--lora-target-modules names out_proj; this base has"),
        (["--output-dir", ""], "--output-dir is missing"),
        (["--stage", "third"], "third"),
    ],
)
def test_bad_input_is_one_line(tiny_llava, data, tmp_path, capsys, more, message):
    output = tmp_path / "out"
    assert main(flags(tiny_llava, data, output, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not output.exists()


def test_parts_that_do_not_go_together(tiny_llava, tiny_lm, data, tmp_path, capsys):
    def refused(base, *more):
        assert main(flags(base, data, tmp_path / "out", *more)) == 2
        return capsys.readouterr().err

    assert "is a language model; add --vision-tower" in refused(tiny_lm, "--stage", "pretrain")
    assert "begin with --stage pretrain" in refused(tiny_lm, "--vision-tower", str(tiny_llava))
    adapter = tmp_path / "adapter"
    assert main(flags(tiny_llava, data, adapter, "--lora")) == 0
    capsys.readouterr()
    assert "is an adapter; merge it first" in refused(adapter)


def test_the_command_takes_the_same_flags(tiny_llava, data, tmp_path, capsys):
    from llava.cli.app import main as command

    assert command(["train-llava", *flags(tiny_llava, data, tmp_path / "out", "--dry-run")]) == 0
    assert "training: 24 rows" in capsys.readouterr().out
    assert command(["train-llava", *flags(tiny_llava, data, tmp_path / "out", "--stage", "pretrain")]) == 0
    assert (tmp_path / "out" / "mm_projector" / "mm_projector.safetensors").is_file()
    capsys.readouterr()
    assert command(["train-llava", "--train-data", "rows.json", "--max-lenght", "3"]) == 2
    assert "did you mean --max-length?" in capsys.readouterr().err
