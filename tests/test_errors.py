from llava.cli.app import main
from llava.errors import LONGEST_MESSAGE, FailedRunError, InputError


def test_bad_input_and_a_failed_run_are_told_apart():
    assert issubclass(InputError, ValueError)
    assert not issubclass(FailedRunError, InputError)


def test_input_error_is_exit_code_two(capsys, tmp_path):
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_failed_self_check_is_exit_code_one(capsys, tmp_path, tiny_lm, tiny_detector):
    """A tolerance that rounded weights cannot meet makes a sound merge fail its check."""
    words = ["merge", "--base", tiny_lm, "--adapter", tiny_detector, "--output", tmp_path / "out", "--tolerance", "0"]
    words += ["--dtype", "bfloat16"]
    assert main([str(word) for word in words]) == 1
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_messages_are_one_printable_line_that_keeps_the_remedy():
    for kind in (InputError, FailedRunError):
        message = str(kind("row\n3 \ud83d " + "x" * 9000 + "; mend it"))
        assert len(message) <= LONGEST_MESSAGE
        assert message.startswith("row 3 ")
        assert message.endswith("; mend it")
        assert message.isprintable()
