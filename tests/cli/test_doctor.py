from importlib import metadata

import pytest
from packaging.requirements import Requirement

from llava.cli.app import main
from llava.cli.doctor import DISTRIBUTION, Finding, _package, _pip_install, examine, print_findings, read_requirements


def test_doctor_names_versions_devices_and_the_embedded_stack(capsys):
    import torch

    code = main(["doctor"])
    out = capsys.readouterr().out
    assert code == 0, out
    for word in (torch.__version__, "transformers", "dtype", "cpu", "base model", "detector", "detoxifier"):
        assert word in out


def test_missing_required_package_fails_and_names_the_command(capsys):
    code = print_findings(
        [
            Finding("Versions", "torch", "not installed", "pip install -e .", required=True),
            Finding("Optional", "deepspeed", "not installed", "pip install -e '.[train]'"),
        ]
    )
    out = capsys.readouterr().out
    assert code == 1
    assert "pip install -e ." in out
    assert "pip install -e '.[train]'" in out
    assert "missing: torch" in out


def test_base_that_is_no_model_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("MLLM_PROTECTOR_BASE", str(tmp_path))
    (finding,) = [finding for finding in examine() if finding.name == "base model"]
    assert finding.required
    assert "MLLM_PROTECTOR_BASE" in finding.remedy


def test_absent_package_is_reported():
    assert _package("x", Requirement("surely-not-installed"), "pip install it").remedy == "pip install it"
    assert _package("x", Requirement("pytest"), "pip install it").remedy is None


def test_a_version_that_will_not_do_is_no_version():
    found = _package("x", Requirement("pytest>=9999; python_version >= '3'"), "pip install it")
    assert found.remedy == "pip install 'pytest>=9999'"
    assert "wanted is >=9999" in found.value


def test_extras_are_those_of_the_metadata():
    found = read_requirements()
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra")
    assert list(found) == ["", *extras]
    assert {"torch", "transformers", "peft"} <= {each.name for each in found[""]}
    assert "deepspeed" in {each.name for each in found["train"]}
    assert "deepspeed" not in {each.name for each in found[""]}
    sections = {finding.section for finding in examine()}
    assert {f"Optional: {extra}" for extra in extras} <= sections


def test_without_metadata_there_are_no_requirements():
    assert read_requirements("surely-not-installed") == {}


def test_the_command_of_an_extra_is_what_a_shell_takes():
    assert _pip_install("train") == "pip install -e '.[train]'"
    assert _pip_install() == "pip install -e ."


@pytest.mark.parametrize("value", ["[red]no[/red]", "/data/[x]", "[/]", ":smile:"])
def test_names_with_markup_are_printed_as_they_are(capsys, value):
    print_findings([Finding(value, value, value, value)])
    assert capsys.readouterr().out.count(value) == 4
