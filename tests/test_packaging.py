"""What is built: a wheel that works alone, from a source archive that is whole."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import llava

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("llava", "tests", "scripts", "docs", "examples", "benchmarks", "requirements")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info")


def test_the_version_stands_in_one_place():
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "llava.__version__"}
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{llava.__version__}]" in changes


def test_the_lowest_versions_are_those_of_the_project():
    """What the workflow installs as lowest is what pyproject.toml promises, or the first version for a newer Python."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned: dict[str, list[Version]] = {}
    for pin in (Requirement(line) for line in lines if not line.startswith("#")):
        pinned.setdefault(pin.name, []).append(Version(str(pin.specifier).removeprefix("==")))
    bounds = {
        wanted.name: [Version(part.version) for part in wanted.specifier if part.operator == ">="]
        for wanted in map(Requirement, project["dependencies"])
    }
    assert {name: min(versions) for name, versions in pinned.items()} == {
        name: lowest[0] for name, lowest in bounds.items() if lowest
    }


def test_the_workflow_runs_what_the_gate_runs():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["run"]
    assert job["strategy"]["matrix"] == {"python": ["3.10", "3.13"], "dependencies": ["lowest", "newest"]}
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == "bash .ci/run"
    assert "requirements/lowest.txt" in str(job["steps"])


def test_the_five_commands_are_documented():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (named,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(named.split()) == 5
    for name in named.split():
        assert f"| `make {name}` |" in page
        if shutil.which("make"):
            subprocess.run(["make", "--dry-run", name], cwd=ROOT, check=True, capture_output=True)


def test_the_hooks_are_commands_that_are_there():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    for hook in hooks:
        assert hook["language"] == "system"
        assert shutil.which(hook["entry"].split()[0]), hook["entry"]


def test_what_the_guide_says_to_copy_is_there():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:llava|tests|examples|docs)/[\w./]+)`", page) + re.findall(
        r"\]\(((?!https?:)[^)]+)\)", page
    )
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def run(*words, **options):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in words], env=environment, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder with the source archive, and the wheel that was built from it."""
    pytest.importorskip("build")
    source = tmp_path_factory.mktemp("source") / "project"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.name in KEPT:
            shutil.copytree(path, source / path.name, ignore=NOT_COPIED)
        elif path.is_file() and path.name != ".git" and not path.name.startswith(".coverage"):
            shutil.copy(path, source / path.name)
    output = tmp_path_factory.mktemp("dist")
    # Without isolation nothing is fetched: the build's own requirements are those of the extra `dev`.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, source)
    return output


@pytest.mark.slow
def test_the_source_archive_is_whole(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    for name in ("CHANGELOG.md", "tests/train/test_paper.py", "scripts/zero2.json", "docs/training.md", "Makefile"):
        assert name in inside
    assert not [name for name in inside if name.endswith(".pyc")]


@pytest.mark.slow
def test_the_wheel_alone_runs_the_quickstart(built, tmp_path):
    """What the package depends on is lent from the running environment, behind what the wheel brings."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    binaries = tmp_path / "venv" / "bin"
    python = binaries / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # A plain path: the editable installation there is not started.
    (site / "lent.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n{sysconfig.get_paths()['platlib']}\n")
    asked = (
        "import llava, importlib.metadata as m; print(llava.__file__, llava.__version__, m.version('mllm-protector'))"
    )
    home, *versions = run(python, "-c", asked, cwd=tmp_path).split()
    assert Path(home).is_relative_to(site)
    assert versions == [llava.__version__] * 2
    assert "pip install -e" not in run(binaries / "mllm-protector", "doctor", cwd=tmp_path)
    run(
        *(binaries / "mllm-protector", "quickstart", "--output", "out", "--limit", "4", "--max-new-tokens", "4"),
        *("--num-processes", "1"),
        cwd=tmp_path,
    )
    assert len((tmp_path / "out" / "records.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "out" / "report.html").is_file()
