"""The settings of a generation run, each with its meaning, checked before anything else happens."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llava.bounds import BOUNDS, check_bounds, flag
from llava.errors import InputError
from llava.model.answering.addresses import parse_address
from llava.model.answering.client import TIMEOUT
from llava.model.options import LoadOptions

AUTO = "auto"


@dataclass(frozen=True)
class GenerationSettings(LoadOptions):
    """What to ask which model, and where the records go; how the model is loaded is part of it."""

    model: str
    """Multimodal model: a folder, a hub name, or `embedded` for the shipped one."""
    output: str | Path
    """Folder of the run; run again on it to resume."""
    endpoint: str | None = None
    """OpenAI-compatible server that runs the model (`http://127.0.0.1:8000/v1`); `model` is its name there."""
    concurrency: int = 8
    """Requests under way at an endpoint, for each process."""
    request_timeout: float = TIMEOUT
    """Seconds that one answer of an endpoint may take."""
    benchmark: str = "mm_safetybench"
    """`mm_safetybench`, `figstep`, `sample`, or a question file (.jsonl, .csv, .json)."""
    data_root: str | Path | None = None
    """Folder that holds the benchmark's files."""
    detector: str | None = None
    """Guard: a detector's folder or hub name, `embedded`, or what else `llava.build_guard` takes; None leaves the
    responses unguarded."""
    state_head: str | None = None
    """Head on the model's own states: a folder, a hub name, or `embedded`. With a detector it decides what is clear,
    and the detector reads the rest; alone it decides everything."""
    detoxifier: str | None = None
    """Detoxifier: a folder, a hub name, or `embedded`; None replaces a flagged response by a fixed refusal."""
    detector_base: str | None = None
    """Base model of the detector's adapter instead of the one that it names."""
    detoxifier_base: str | None = None
    """The same for the detoxifier."""
    threshold: float | None = None
    """Harm score at which a response is flagged, in (0, 1]; None takes the detector's own."""
    trim: bool | None = None
    """Whether the harmful sentences of a response are cut out before it is rewritten as a whole; None does what the run
    began with, and trims in a new one."""
    share_backbone: bool | None = None
    """Whether detector and detoxifier use the weights of the model's own language model, which must be their base; None
    does what the run began with, and in a new one lets them where that is so and the weights are not quantised."""
    limit: int | None = None
    """Ask at most so many questions."""
    image_types: tuple[str, ...] | None = None
    """Image types to ask (`TEXT`, `SD`, `TYPO`, `SD_TYPO`, `IMAGE`); None asks all."""
    scenarios: tuple[str, ...] | None = None
    """Scenarios to ask, in the benchmark's spelling; None asks all."""
    reference_typo_prompt: bool = False
    """Pair MM-SafetyBench's TYPO images with the SD text, as the reference project does."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy decoding."""
    max_new_tokens: int = 256
    """Longest response, in tokens."""
    num_processes: int | None = None
    """Processes that share the questions; None takes one for each accelerator, or one on a CPU."""
    batch_size: int | str = AUTO
    """Questions that go through the model together; `auto` follows the memory of the device."""
    seed: int = 0
    """Seed of sampling; each question derives its own from it."""
    threads: int | None = None
    """CPU threads of one process; None shares the cores among the processes."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use; lists that come from YAML become tuples."""
        super().__post_init__()
        for name in ("image_types", "scenarios"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        for name in ("model", "benchmark", "output"):
            if not str(getattr(self, name)).strip():
                raise InputError(f"{flag(name)} is empty; give a path or a name")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in BOUNDS and not (value is None and field.default is None):
                check_bounds(field.name, value)
        for name in ("image_types", "scenarios"):
            if getattr(self, name) == ():
                raise InputError(f"{flag(name)} names nothing; give at least one or leave it out")
        for name in ("detoxifier", "threshold", "trim", "detector_base", "detoxifier_base", "share_backbone"):
            guarded = self.detector or (self.state_head and name == "threshold")
            if getattr(self, name) is not None and not guarded:
                raise InputError(f"{flag(name)} does nothing without a detector; add --detector")
        if self.detoxifier_base is not None and self.detoxifier is None:
            raise InputError("--detoxifier-base does nothing without a detoxifier; add --detoxifier")
        for name in (
            *("load_in_8bit", "load_in_4bit", "attn_implementation", "trust_remote_code"),
            *("base", "vision_tower", "share_backbone", "state_head"),
        ):
            if self.endpoint is not None and getattr(self, name):
                raise InputError(f"{flag(name)} does nothing with --endpoint; set it where the server is started")

    def part_options(self, part: str, device: str | None = None) -> LoadOptions:
        """Return how the detector or the detoxifier is loaded: where and in the numbers that the model is, but whole.

        Args:
            part: `detector` or `detoxifier`.
            device: Device of this process; None takes that of the settings.
        """
        base = getattr(self, f"{part}_base")
        return LoadOptions(device=device or self.device, dtype=self.dtype, base=base)

    def describe(self) -> dict[str, Any]:
        """Return the JSON form that is stored and shown: the endpoint's address without user information and keys."""
        endpoint = None if self.endpoint is None else str(parse_address(self.endpoint))
        return {**self.to_dict(), "endpoint": endpoint}
