"""Everything a generation run checks before it writes its first byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava.data.schema import Question
from llava.errors import InputError
from llava.eval.run.environment import (
    ENDPOINT_BATCH_SIZE,
    choose_batch_size,
    count_processes,
    count_sharers,
    describe_device,
    describe_versions,
    measure_weights,
)
from llava.eval.run.fingerprint import (
    build_fingerprint,
    check_same_run,
    read_run,
    resolve_sharing,
    resolve_stored,
    resolve_trim,
)
from llava.eval.run.planning import Batch, check_texts, plan_batches
from llava.eval.run.records import read_rows
from llava.eval.run.settings import AUTO, GenerationSettings
from llava.model.identity import Checkpoint, identify_checkpoint
from llava.places import check_output_folder


@dataclass(frozen=True)
class Plan:
    """A checked run: what will be asked, by what, in which batches."""

    settings: GenerationSettings
    """Settings with `num_processes`, `batch_size` and `dtype` resolved."""
    questions: list[Question]
    """The question list, in the benchmark's order."""
    batches: list[Batch]
    """All batches of the list, the finished ones too."""
    description: dict[str, Any]
    """Content of `run.json`."""
    warnings: list[str]
    """What the user should know before it starts."""

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.settings.output)


def prepare_run(settings: GenerationSettings) -> Plan:
    """Check models, questions, images and output; write nothing.

    Raises:
        InputError: When a checkpoint, the benchmark, an image or the output folder cannot be used.
    """
    from llava.data.benchmarks.loading import load_benchmark
    from llava.data.images import check_images
    from llava.model.devices import pick_device, pick_dtype

    output = Path(settings.output)
    check_output_folder(output)
    previous = read_run(output)
    device = pick_device(settings.device)
    checkpoints = find_checkpoints(settings)
    benchmark = load_benchmark(
        settings.benchmark,
        settings.data_root,
        scenarios=settings.scenarios,
        image_types=settings.image_types,
        limit=settings.limit,
        reference_typo_prompt=settings.reference_typo_prompt,
        verify_images=False,
    )
    check_texts(benchmark.questions)
    settled = replace(settings, num_processes=count_processes(settings))
    if settings.detector is not None:
        sharing = resolve_sharing(settings, previous)
        settled = replace(settled, trim=resolve_trim(settings, previous), share_backbone=sharing)
    resolved = replace(
        settled,
        batch_size=resolve_batch_size(settled, previous, device, checkpoints["model"]),
        dtype=str(pick_dtype(device, settings.dtype)).removeprefix("torch."),
    )
    fingerprint = build_fingerprint(
        resolved,
        benchmark.questions,
        batch_size=int(resolved.batch_size),
        device_type=device.type,
        dtype=resolved.dtype,
        checkpoints=checkpoints,
    )
    if previous is not None:
        check_same_run(output, previous["fingerprint"], fingerprint)
    done = read_rows(output)
    check_images(q.image for q in benchmark.questions if q.image is not None and q.key not in done)
    missing = list(benchmark.missing_images)
    description = previous or {
        "fingerprint": fingerprint,
        "settings": settings.describe(),
        "benchmark": {"name": benchmark.name, "missing_images": missing, "notes": list(benchmark.notes)},
        "device": describe_device(device),
        "versions": describe_versions(),
        "launches": [],
    }
    batches = plan_batches(benchmark.questions, int(resolved.batch_size))
    warnings = list_warnings(missing, benchmark.notes) + list_changed_versions(description["versions"])
    return Plan(resolved, list(benchmark.questions), batches, description, warnings)


def find_checkpoints(settings: GenerationSettings) -> dict[str, Checkpoint | None]:
    """Locate the model and what guards its answers, and check the latter.

    Raises:
        InputError: When one is neither a folder with a config nor a hub name, an adapter belongs to another base, or
            the endpoint has no such model.
    """
    from llava.protector.checkpoints import check_checkpoint, identify_part
    from llava.protector.guard import check_guard, identify_guard
    from llava.protector.states.finding import check_head

    found: dict[str, Checkpoint | None] = {"model": find_model(settings), "detector": None, "detoxifier": None}
    if settings.detector is not None:
        found["detector"] = identify_guard(settings.detector, settings.detector_base)
    if settings.detoxifier is not None:
        found["detoxifier"] = identify_part("detoxifier", settings.detoxifier, settings.detoxifier_base)
    for kind, checkpoint in found.items():
        if checkpoint is None:
            continue
        folder = Path(checkpoint.path)
        if folder.is_absolute() and not folder.is_dir():
            raise InputError(f"--{kind} {checkpoint.name} does not exist; check the path")
        if folder.is_dir() and not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise InputError(f"--{kind} {checkpoint.name} holds no config.json; give the folder of a checkpoint")
    found["state_head"] = check_head(settings.state_head, found["model"]) if settings.state_head else None
    if settings.detector is not None:
        check_guard(settings.detector, settings.part_options("detector"))
    if settings.detoxifier is not None:
        check_checkpoint("detoxifier", settings.detoxifier, settings.detoxifier_base)
    return found


def find_model(settings: GenerationSettings) -> Checkpoint:
    """Locate the model, on disk or at its endpoint."""
    if settings.endpoint is not None:
        from llava.model.answering.client import ChatClient

        ChatClient(settings.endpoint, settings.model, timeout=settings.request_timeout).check()
        return Checkpoint(settings.model, settings.model, None)
    from llava.model.embedded.stack import resolve_mllm
    from llava.model.loading import locate

    return identify_checkpoint(settings.model, locate(resolve_mllm(settings.model)))


def resolve_batch_size(
    settings: GenerationSettings, previous: dict[str, Any] | None, device: Any, model: Checkpoint | None
) -> int:
    """Return the rows of a batch: as asked, as in the earlier launch, or by the device's memory."""
    if settings.batch_size != AUTO:
        return int(settings.batch_size)
    stored = resolve_stored(settings, previous, "batch_size")
    if stored is not None:
        return int(stored)
    if settings.endpoint is not None:
        return ENDPOINT_BATCH_SIZE
    folder = Path(model.path) if model else None
    weights = measure_weights(folder) if folder is not None and folder.is_dir() else 0
    return choose_batch_size(device, weights, count_sharers(settings, device))


def list_warnings(missing_images: Sequence[str], notes: Sequence[str]) -> list[str]:
    """Return what the user should know before the run starts, one line each."""
    warnings = list(notes)
    if missing_images:
        warnings.append(
            f"{len(missing_images)} images are missing, such as {missing_images[0]}; their questions are left out"
        )
    return warnings


def list_changed_versions(first: dict[str, str]) -> list[str]:
    """Return a line when the libraries are not those that the run began with: they may round differently."""
    now = describe_versions()
    changed = [f"{name} {first[name]} → {now[name]}" for name in now if first.get(name, now[name]) != now[name]]
    return [f"versions changed since this run began ({', '.join(changed)}); records may differ"] if changed else []
