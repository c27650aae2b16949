from llava.cli.app import main
from llava.cli.doctor import Finding, examine, print_findings


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
    assert "missing: torch" in out


def test_base_that_is_no_model_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("MLLM_PROTECTOR_BASE", str(tmp_path))
    (finding,) = [finding for finding in examine() if finding.name == "base model"]
    assert finding.required
    assert "MLLM_PROTECTOR_BASE" in finding.remedy


def test_absent_package_is_reported():
    from llava.cli.doctor import _package

    assert _package("x", "surely-not-installed", "pip install it").remedy == "pip install it"
    assert _package("x", "pytest", "pip install it").remedy is None
