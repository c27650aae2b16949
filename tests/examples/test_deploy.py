"""The deployment files: each is read, names options that there are, agrees on ports, and needs no root."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml

from llava.cli.app import app
from tests.serve.support import serve_guard

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "deploy"
PORT = "8000"
measure_server = importlib.import_module("examples.deploy.measure_server")


def list_options() -> dict[str, bool]:
    """Return the options of `mllm-protector serve`, and whether each takes a value."""
    group: Any = typer.main.get_command(app)
    command = group.commands["serve"]
    return {name: not getattr(p, "is_flag", False) for p in command.params for name in (*p.opts, *p.secondary_opts)}


def read_dockerfile() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, comments and line breaks taken out."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def read_unit() -> list[tuple[str, str]]:
    """Return the settings of the systemd unit."""
    text = (FOLDER / "mllm-protector.service").read_text(encoding="utf-8").replace("\\\n", " ")
    return [tuple(line.split("=", 1)) for line in text.splitlines() if "=" in line and not line.startswith("#")]


COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
CLUSTER = {each["kind"]: each for each in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))}
POD = CLUSTER["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
DOCKER = read_dockerfile()
UNIT = read_unit()

COMMANDS = {
    "Dockerfile": json.loads(dict(DOCKER)["CMD"]),
    "compose.yaml": COMPOSE["services"]["guard"]["command"],
    "kubernetes.yaml": CONTAINER["args"],
    "mllm-protector.service": shlex.split(dict(UNIT)["ExecStart"])[2:],
}


def read_options(words: list[str]) -> dict[str, str]:
    """Return the options of a command by name."""
    takes_value, found, rest = list_options(), {}, list(words)
    while rest:
        name, _, value = rest.pop(0).partition("=")
        assert name in takes_value, f"{name} is no option of `mllm-protector serve`"
        found[name] = value or (rest.pop(0) if takes_value[name] else "")
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_are_those_of_the_command(name):
    options = read_options(COMMANDS[name])
    assert options["--port"] == PORT
    assert options["--detector"] == "embedded"
    assert not {"--fail-open", "--allow-anonymous", "--log-text"} & set(options)
    # Where others can reach it, it has keys: in the image they come with the environment.
    assert options["--host"] == "127.0.0.1" or "--api-key-file" in options or name == "Dockerfile"


def test_an_option_that_is_not_there_is_found():
    with pytest.raises(AssertionError, match="--prot is no option"):
        read_options(["--prot", "8000"])


def test_ports_agree():
    assert dict(DOCKER)["EXPOSE"] == PORT
    assert f"127.0.0.1:{PORT}/ready" in dict(DOCKER)["HEALTHCHECK"]
    assert COMPOSE["services"]["guard"]["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert str(CONTAINER["ports"][0]["containerPort"]) == PORT
    assert str(CLUSTER["Service"]["spec"]["ports"][0]["port"]) == PORT
    model = COMPOSE["services"]["model"]
    upstreams = {read_options(words)["--upstream"] for name, words in COMMANDS.items() if name != "Dockerfile"}
    assert upstreams == {"http://model:8001/v1", "http://127.0.0.1:8001/v1"}
    assert model["command"][model["command"].index("--port") + 1] == "8001"
    assert CLUSTER["NetworkPolicy"]["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8001}]


def test_nothing_runs_as_root():
    users = [value for name, value in DOCKER if name == "USER"]
    assert users == ["10001:10001"]
    assert [name for name, _ in DOCKER].index("USER") < [name for name, _ in DOCKER].index("ENTRYPOINT")
    for service in COMPOSE["services"].values():
        assert int(service["user"].partition(":")[0]) > 0
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] == 10001
    inside = CONTAINER["securityContext"]
    assert (inside["allowPrivilegeEscalation"], inside["readOnlyRootFilesystem"]) == (False, True)
    assert inside["capabilities"] == {"drop": ["ALL"]}
    unit = dict(UNIT)
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == "yes"
    assert unit["ProtectSystem"] == "strict"
    assert unit["CapabilityBoundingSet"] == ""
    assert "User" not in unit


def test_the_model_cannot_be_reached_past_the_guard():
    model = COMPOSE["services"]["model"]
    assert "ports" not in model
    assert model["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    allowed = CLUSTER["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert allowed == [{"podSelector": {"matchLabels": CLUSTER["Deployment"]["spec"]["selector"]["matchLabels"]}}]


def test_the_cluster_asks_the_right_pages_and_sets_limits():
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == CONTAINER["startupProbe"]["httpGet"]["path"] == "/health"
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert set(CONTAINER["resources"]) == {"requests", "limits"}
    assert set(CONTAINER["resources"]["limits"]) == {"cpu", "memory"}
    labels = CLUSTER["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget"):
        selector = CLUSTER[kind]["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels
    volumes = {volume["name"] for volume in POD["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes


def test_there_is_time_to_end_in_peace():
    for name, grace in {
        "compose.yaml": COMPOSE["services"]["guard"]["stop_grace_period"].removesuffix("s"),
        "kubernetes.yaml": POD["terminationGracePeriodSeconds"],
        "mllm-protector.service": dict(UNIT)["TimeoutStopSec"],
    }.items():
        assert int(grace) > int(read_options(COMMANDS[name])["--shutdown-timeout"])


def test_the_image_is_built_from_what_is_there():
    copied = [value.split()[:-1] for name, value in DOCKER if name == "COPY" and "--from" not in value]
    names = {name for words in copied for name in words}
    assert names == {"pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "llava"}
    assert all((ROOT / name).exists() for name in names)
    let_in = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in let_in if line.startswith("!")} == names
    torch = re.search(r'"(torch[^"]+)"', (FOLDER / "Dockerfile").read_text(encoding="utf-8")).group(1)
    assert f'"{torch}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [value for name, value in DOCKER if name == "ARG"] == ["PYTHON=3.12", "TORCH=cpu"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path):
    text = (FOLDER / "mllm-protector.service").read_text(encoding="utf-8")
    # The program lies elsewhere here.
    program = shutil.which("mllm-protector") or shutil.which("true")
    unit = tmp_path / "mllm-protector.service"
    unit.write_text(text.replace("/opt/mllm-protector/bin/mllm-protector", program))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:]


def test_a_running_guard_is_measured(capsys):
    with serve_guard() as live:
        words = ["--url", live.url, "--pid", str(os.getpid()), "--seconds", "0.3", "--clients", "1", "3"]
        assert measure_server.main(words) == 0
        asked = set(live.guard.texts)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if re.fullmatch(r"    processor time for each: \d+ ms", line)]) == 4
    lines = [line for line in lines if not line.startswith(" ")]
    form = re.compile(r"(short|long) \(\d+ tokens\), +[13] clients: +\d+\.\d/s, median +\d+ ms, 99% +\d+ ms")
    assert [bool(form.fullmatch(line)) for line in lines] == [True] * 4 + [False]
    assert re.fullmatch(r"memory: \d+ MiB, at most \d+ MiB", lines[-1])
    assert len({len(text) for text in asked}) == 2


def test_a_server_that_refuses_is_no_measurement():
    with serve_guard(api_keys=("key",)) as live, pytest.raises(httpx.HTTPStatusError, match="401"):
        measure_server.measure(0.2, live.url, 1, 2, None)
