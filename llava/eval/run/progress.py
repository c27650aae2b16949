"""One progress bar for all processes of a launch, fed by the lines that they append to their shards."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from llava.eval.run.layout import SHARDS_FOLDER

POLL_SECONDS = 0.5


class LineCounter:
    """Counts the lines that a launch has appended, reading each byte once."""

    def __init__(self, folder: Path, launch: str):
        """Take the run's folder and the launch whose shards count."""
        self.folder = folder / SHARDS_FOLDER
        self.pattern = f"{launch}-*.jsonl"
        self.offsets: dict[Path, int] = {}

    def count_new(self) -> int:
        """Return how many lines came since the last call."""
        lines = 0
        for path in self.folder.glob(self.pattern):
            with path.open("rb") as stream:
                stream.seek(self.offsets.get(path, 0))
                content = stream.read()
                self.offsets[path] = stream.tell()
            lines += content.count(b"\n")
        return lines


@contextlib.contextmanager
def show_progress(
    folder: Path,
    launch: str,
    *,
    total: int,
    done: int,
    unit: str = "question",
    label: str = "generate",
    per_line: int = 1,
) -> Iterator[None]:
    """Show a bar on stderr inside the block; nothing when stderr is no terminal.

    Args:
        folder: Folder of the run.
        launch: The launch whose records count.
        total: Questions of the run.
        done: Questions that had a record before this launch.
        unit: What is counted.
        label: What stands before the bar.
        per_line: How many a line of a shard stands for, at most.
    """
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    counter = LineCounter(folder, launch)
    finished = threading.Event()
    with tqdm(total=total, initial=done, unit=unit, desc=label, file=sys.stderr) as bar:

        def move() -> None:
            bar.update(min(per_line * counter.count_new(), total - bar.n))

        def follow() -> None:
            while not finished.wait(POLL_SECONDS):
                move()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
            move()
