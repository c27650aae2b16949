"""The settings of `detect`: which rows, which guard, how many processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llava.bounds import BOUNDS, check_bounds, flag
from llava.errors import InputError
from llava.model.options import LoadOptions
from llava.places import to_file_name


@dataclass(frozen=True)
class DetectionSettings(LoadOptions):
    """Which rows are scored by which guard, and where they go; how the guard is loaded is part of it."""

    input: str | Path
    """Rows with `response` and, where it is known, `prompt`."""
    output: str | Path
    """File to write: JSON Lines, or what its ending says (`.csv`, `.parquet`)."""
    detector: str = "embedded"
    """Guard, as `llava.build_guard` takes it."""
    threshold: float | None = None
    """Harm score from which a row is flagged, in (0, 1]; None takes the guard's own."""
    batch_size: int = 16
    """Full windows a forward pass."""
    num_processes: int | None = None
    """Processes that share the rows; None takes one for each accelerator, or one on a CPU."""
    threads: int | None = None
    """CPU threads of one process; None shares the cores among the processes."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        super().__post_init__()
        for name in ("input", "output", "detector"):
            if not str(getattr(self, name)).strip():
                raise InputError(f"{flag(name)} is empty; give a path or a name")
        for name in ("threshold", "batch_size", "num_processes", "threads"):
            value = getattr(self, name)
            if value is not None and name in BOUNDS:
                check_bounds(name, value)

    @property
    def folder(self) -> Path:
        """Folder of what is not finished, beside the output; gone when the output is there."""
        output = Path(self.output)
        return output.absolute().parent / f".{to_file_name(output.name)}.parts"
