"""What the processes of one launch of `detect` share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llava.eval.detection.settings import DetectionSettings
from llava.eval.detection.spool import Chunk
from llava.eval.run.layout import CLAIMS_FOLDER


@dataclass(frozen=True)
class DetectionJob:
    """One launch: which chunks are to be scored by whom."""

    settings: DetectionSettings
    """Settings of the run."""
    launch: str
    """Name of the launch, in shard names and claims."""
    num_processes: int
    """Processes of the launch."""
    pending: list[Chunk]
    """Chunks that lack scores."""

    @property
    def folder(self) -> Path:
        """Folder of what is not finished."""
        return self.settings.folder

    @property
    def claims(self) -> Path:
        """Folder of this launch's claims and outcomes."""
        return self.folder / CLAIMS_FOLDER / self.launch

    @property
    def threads(self) -> int | None:
        """CPU threads of one process."""
        return self.settings.threads

    def to_json(self) -> str:
        """Return the JSON form, which goes to a process through its standard input."""
        return json.dumps(
            {
                "settings": self.settings.to_dict(),
                "launch": self.launch,
                "num_processes": self.num_processes,
                "pending": [chunk.to_list() for chunk in self.pending],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> DetectionJob:
        """Rebuild a job from its JSON form."""
        values = json.loads(text)
        return cls(
            settings=DetectionSettings.from_dict(values["settings"]),
            launch=values["launch"],
            num_processes=values["num_processes"],
            pending=[Chunk(*numbers) for numbers in values["pending"]],
        )
