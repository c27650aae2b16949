"""`mllm-protector doctor`: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from shlex import quote

from packaging.requirements import Requirement

DISTRIBUTION = "mllm-protector"
SPACE_GB = 3.0
"""What the embedded stack takes on disk while it is built, in GB."""
MARKS = {True: ("no", "red"), False: ("--", "yellow")}
"""Mark and colour of something that is missing, by whether it is required."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    section: str
    """Group it is printed under."""
    name: str
    """What was looked at."""
    value: str
    """What was found."""
    remedy: str | None = None
    """Command or step that mends it; None when nothing is wrong."""
    required: bool = False
    """Whether the package does not work without it."""


def examine() -> list[Finding]:
    """Look at the installation, the devices and the embedded stack; nothing is downloaded or changed."""
    return [*_packages(), *_devices(), *_embedded()]


def print_findings(findings: list[Finding]) -> int:
    """Print the findings as a table on stdout.

    Returns:
        0 when nothing required is missing, else 1.
    """
    from rich.table import Table
    from rich.text import Text

    from llava.terminal import build_console

    console = build_console()
    for section in dict.fromkeys(finding.section for finding in findings):
        table = Table(title=section, title_justify="left", show_header=False, box=None, pad_edge=False)
        table.add_column(no_wrap=True, min_width=18)
        table.add_column(overflow="fold")
        for finding in (item for item in findings if item.section == section):
            mark, colour = ("ok", "green") if finding.remedy is None else MARKS[finding.required]
            table.add_row(Text.assemble((f"{mark:4}", colour), finding.name), finding.value)
            if finding.remedy:
                table.add_row("", Text(finding.remedy, style="bold"))
        console.print(table)
        console.print()
    failed = [finding.name for finding in findings if finding.required and finding.remedy]
    if failed:
        console.print(f"missing: {', '.join(failed)}", style="red")
        return 1
    console.print("everything required is here", style="green")
    return 0


def _packages() -> list[Finding]:
    """Versions of Python and the libraries, and the pip command for those that are absent or of another version."""
    section = "Versions"
    old = sys.version_info < (3, 10)
    found = [
        Finding(section, "python", platform.python_version(), "install Python 3.10 or newer" if old else None, True),
        _package(section, Requirement(DISTRIBUTION), _pip_install(), required=True),
    ]
    for extra, requirements in read_requirements().items():
        name = f"Optional: {extra}" if extra else section
        found += [_package(name, each, _pip_install(extra), required=not extra) for each in requirements]
    return found


def read_requirements(distribution: str = DISTRIBUTION) -> dict[str, list[Requirement]]:
    """Read what a distribution needs from its metadata.

    Args:
        distribution: Name of an installed distribution.

    Returns:
        Requirements of this machine by extra; those that are always needed under the empty name. Empty when the
        distribution is not installed.
    """
    try:
        found = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(line) for line in found.get_all("Requires-Dist") or []]
    always = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    grouped = {"": always}
    for extra in found.get_all("Provides-Extra") or []:
        grouped[extra] = [
            each
            for each in requirements
            if each not in always and each.marker and each.marker.evaluate({"extra": extra})
        ]
    return grouped


def _pip_install(extra: str = "") -> str:
    """Return the command that installs this project with an extra, from its checkout where it is one."""
    checkout = (Path(__file__).resolve().parents[2] / "pyproject.toml").is_file()
    target = ("." if checkout else DISTRIBUTION) + (f"[{extra}]" if extra else "")
    return f"pip install {'-e ' if checkout else ''}{quote(target)}"


def _package(section: str, requirement: Requirement, remedy: str, required: bool = False) -> Finding:
    """Say which version of a package is installed, and whether it is one that will do."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(section, requirement.name, "not installed", remedy, required)
    if not requirement.specifier.contains(version, prereleases=True):
        wanted = f"{version}; wanted is {requirement.specifier}"
        return Finding(section, requirement.name, wanted, f"pip install {quote(str(_bare(requirement)))}", required)
    return Finding(section, requirement.name, version, None, required)


def _bare(requirement: Requirement) -> Requirement:
    """Return a requirement without its marker: what pip is told on this machine."""
    bare = Requirement(str(requirement))
    bare.marker = None
    return bare


def _devices() -> list[Finding]:
    """Devices, and the dtype and attention that `auto` chooses on each."""
    section = "Devices"
    try:
        import torch

        from llava.model.devices import pick_device, pick_dtype
    except ImportError as error:
        return [Finding(section, "torch", f"does not import ({error})", _pip_install(), True)]
    device = pick_device()
    dtype = str(pick_dtype(device)).removeprefix("torch.")
    found = [
        # The installed version above is what pip recorded, which may lack the build: CUDA, ROCm or CPU.
        Finding(section, "torch build", str(torch.__version__)),
        Finding(section, "chosen", f"{device}, dtype {dtype}, attention sdpa"),
    ]
    for index in range(torch.accelerator.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30 if device.type == "cuda" else 0
        name = torch.cuda.get_device_name(index) if device.type == "cuda" else device.type
        found.append(Finding(section, f"{device.type}:{index}", f"{name}, {memory:.0f} GiB" if memory else name))
    threads = os.environ.get("OMP_NUM_THREADS")
    cores = os.cpu_count() or 1
    found.append(Finding(section, "cpu", f"{cores} cores, {torch.get_num_threads()} threads, dtype float32"))
    capabilities: Mapping[str, object] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if capabilities.get("amx_bf16"):
        found.append(Finding(section, "AMX", "bfloat16 in hardware: --dtype bfloat16 takes about half the time"))
    if device.type == "cpu" and threads and threads.isdigit() and int(threads) < cores:
        found.append(Finding(section, "OMP_NUM_THREADS", f"{threads} of {cores} cores", "unset OMP_NUM_THREADS"))
    return found


def _embedded() -> list[Finding]:
    """Base model, adapters, and room for them."""
    from llava.errors import InputError
    from llava.model.embedded.stack import cache_dir, resolve_adapter

    section = "Embedded stack"
    cache = cache_dir()
    own = os.environ.get("MLLM_PROTECTOR_BASE")
    if own:
        bad = (
            None if Path(own, "config.json").is_file() else "set MLLM_PROTECTOR_BASE to a SmolLM2-135M-Instruct folder"
        )
        found = [Finding(section, "base model", f"{own} (MLLM_PROTECTOR_BASE)", bad, True)]
    else:
        built = cache.is_dir() and any(cache.iterdir())
        found = [Finding(section, "base model", f"in {cache}" if built else f"fetched into {cache} on first use")]
    for kind in ("detector", "detoxifier"):
        try:
            found.append(Finding(section, kind, resolve_adapter(kind, "embedded")))
        except InputError as error:
            found.append(Finding(section, kind, str(error), f"{_pip_install()} (from a complete checkout)", True))
    place = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free / 1e9
    remedy = None if free > SPACE_GB else f"free {SPACE_GB:.0f} GB, or set MLLM_PROTECTOR_CACHE to a roomier folder"
    found.append(Finding(section, "disk", f"{free:.0f} GB free at {place}", remedy))
    return found
